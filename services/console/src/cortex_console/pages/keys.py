"""API keys: mine, and all."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("API keys")
    empty_state("o_key", "Not here yet", "This page is being built.")


KEYS = Page("/keys", "API keys", build, Right.SELF, icon="o_key", group="Access")
