"""Who did what."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Audit")
    empty_state("o_history", "Not here yet", "This page is being built.")


AUDIT = Page("/audit", "Audit", build, Right.AUDIT_READ, icon="o_history", group="Access")
