"""Users."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Users")
    empty_state("o_group", "Not here yet", "This page is being built.")


USERS = Page("/users", "Users", build, Right.USERS_READ, icon="o_group", group="Access")
