"""Health of all endpoints."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Health")
    empty_state("o_monitor_heart", "Not here yet", "This page is being built.")


HEALTH = Page("/health", "Health", build, Right.MODELS_READ, icon="o_monitor_heart", group="Observe")
