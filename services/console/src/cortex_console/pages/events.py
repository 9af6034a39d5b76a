"""What happens, as it happens."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Events")
    empty_state("o_bolt", "Not here yet", "This page is being built.")


EVENTS = Page("/events", "Events", build, Right.EVENTS_READ, icon="o_bolt", group="Observe")
