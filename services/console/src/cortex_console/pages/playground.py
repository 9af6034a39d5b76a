"""Playground: try a model."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Playground")
    empty_state("o_forum", "Not here yet", "This page is being built.")


PLAYGROUND = Page("/playground", "Playground", build, Right.SELF, icon="o_forum", group="Serve")
