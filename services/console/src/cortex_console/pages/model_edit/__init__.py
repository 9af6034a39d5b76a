"""New and edited models."""

from cortex_console.components.page import Page
from cortex_console.pages.model_edit.edit import build_edit
from cortex_console.pages.model_edit.new import build_new
from cortex_contracts.rights import Right

NEW_MODEL = Page("/models/new", "New model", build_new, Right.MODELS_WRITE, belongs_to="/models")
EDIT_MODEL = Page("/models/{reference}/edit", "Edit model", build_edit, Right.MODELS_WRITE, belongs_to="/models")
