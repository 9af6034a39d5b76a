"""Usage: who asked what, and how fast it was."""

from cortex_console.components.page import Page, PageContext
from cortex_console.pages.usage.report import UsagePage
from cortex_contracts.rights import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    await UsagePage(context).build()


USAGE = Page("/usage", "Usage", build, Right.USAGE_READ, icon="o_bar_chart", group="Observe")
