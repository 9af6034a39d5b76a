"""Recipes: settings to make models of."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Recipes")
    empty_state("o_library_books", "Not here yet", "This page is being built.")


RECIPES = Page("/recipes", "Recipes", build, Right.RECIPES_READ, icon="o_library_books", group="Serve")
