"""Guide for a first-time administrator."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Guide")
    empty_state("o_menu_book", "Not here yet", "This page is being built.")


GUIDE = Page("/guide", "Guide", build, Right.SELF, icon="o_menu_book", group="More")
