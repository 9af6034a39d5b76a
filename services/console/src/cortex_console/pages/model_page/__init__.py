"""One model: state, why, replicas, logs, metrics, requests, events."""

from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right
from cortex_console.pages.model_page.page import ModelPage


async def build(context: PageContext) -> None:
    """Draw the page."""
    await ModelPage(context).build()


MODEL = Page("/models/{reference}", "Model", build, Right.MODELS_READ, belongs_to="/models")
