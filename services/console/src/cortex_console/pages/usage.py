"""Usage: who asked what, and how fast it was."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Usage")
    empty_state("o_bar_chart", "Not here yet", "This page is being built.")


USAGE = Page("/usage", "Usage", build, Right.USAGE_READ, icon="o_bar_chart", group="Observe")
