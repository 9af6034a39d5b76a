"""New and edited models."""

from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.domain.identity import Right


async def build_new(context: PageContext) -> None:
    """Draw the form of a new model."""
    page_header("New model", back=("/models", "Models"))
    empty_state("o_add_circle", "Not here yet", "This page is being built.")


async def build_edit(context: PageContext) -> None:
    """Draw the form of a model that exists."""
    reference = context.parameters["reference"]
    page_header(f"Edit {reference}", back=(f"/models/{reference}", reference))
    empty_state("o_edit", "Not here yet", "This page is being built.")


NEW_MODEL = Page("/models/new", "New model", build_new, Right.MODELS_WRITE, belongs_to="/models")
EDIT_MODEL = Page("/models/{reference}/edit", "Edit model", build_edit, Right.MODELS_WRITE, belongs_to="/models")
