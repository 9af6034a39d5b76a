"""One model: state, why, replicas, logs, metrics, requests, events."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header(context.parameters["reference"], back=("/models", "Models"))
    empty_state("o_insights", "Not here yet", "This page is being built.")


MODEL = Page("/models/{reference}", "Model", build, Right.MODELS_READ, belongs_to="/models")
