"""One model: state, why, replicas, logs, metrics, requests, events."""

from cortex_console.components.page import Page, PageContext
from cortex_console.pages.model_page.page import ModelPage
from cortex_contracts.rights import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    await ModelPage(context).build()


MODEL = Page("/models/{reference}", "Model", build, Right.MODELS_READ, belongs_to="/models")
