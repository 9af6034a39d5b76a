"""API keys: mine, and all."""

from cortex_console.components.page import Page, PageContext
from cortex_console.pages.keys.listing import KeysPage
from cortex_contracts.rights import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    await KeysPage(context).build()


KEYS = Page("/keys", "API keys", build, Right.SELF, icon="o_key", group="Access")
