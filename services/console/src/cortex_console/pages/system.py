"""Hosts, GPUs, memory."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("System")
    empty_state("o_dns", "Not here yet", "This page is being built.")


SYSTEM = Page("/system", "System", build, Right.SYSTEM_READ, icon="o_dns", group="Observe")
