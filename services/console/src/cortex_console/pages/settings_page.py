"""Webhooks, upstreams, backups, one's own account."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Settings")
    empty_state("o_settings", "Not here yet", "This page is being built.")


SETTINGS = Page("/settings", "Settings", build, Right.SELF, icon="o_settings", group="More")
