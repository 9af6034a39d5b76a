"""Resource calculator."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Calculator")
    empty_state("o_calculate", "Not here yet", "This page is being built.")


CALCULATOR = Page("/calculator", "Calculator", build, Right.MODELS_READ, icon="o_calculate", group="Serve")
