"""Requests and answers about recipes."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from cortex_contracts.enums import EngineType, Task
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.recipes import Recipe
from cortex_registry.domain.text import require_storable
from cortex_registry.handlers.recipes import RecipeDraft, RecipePatch, Saved

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
Description = Annotated[str, StringConstraints(max_length=2048)]
_EXAMPLE: dict[str, Any] = {
    "name": "gpt-oss on two GPUs",
    "description": "What we run in production.",
    "fields": {"engine_type": "llamacpp", "local_path": "gpt-oss-120b.gguf", "tensor_split": "1,1"},
}


class _Storable(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value


class RecipeRequest(_Storable):
    """A recipe. Fields of the model go into `fields`, or, as in the first Cortex, beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra={"example": _EXAMPLE})

    name: Name
    description: Description = ""
    fields: dict[str, JsonValue] = Field(default_factory=dict)

    def draft(self) -> RecipeDraft:
        """In the words of the service."""
        return RecipeDraft(self.name, self.description, {**(self.model_extra or {}), **self.fields})


class RecipePatchRequest(_Storable):
    """What shall change. Of `fields` each named one is replaced, null puts its default back."""

    model_config = ConfigDict(
        frozen=True, extra="allow", json_schema_extra={"example": {"fields": {"context_size": 32768}}}
    )

    name: Name | None = None
    description: Description | None = None
    fields: dict[str, JsonValue] = Field(default_factory=dict)

    def patch(self) -> RecipePatch:
        """In the words of the service."""
        return RecipePatch(self.name, self.description, {**(self.model_extra or {}), **self.fields})


class FromModelRequest(_Storable):
    """The name of the new recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"example": {"name": "our qwen"}})

    name: Name
    description: Description = ""


class ModelFromRecipeRequest(_Storable):
    """The name of the new model, and any fields that shall differ, in `overrides` or beside the name."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        json_schema_extra={"example": {"name": "qwen-2", "overrides": {"replicas": 2, "hf_token": None}}},
    )

    name: Name
    overrides: dict[str, JsonValue] = Field(default_factory=dict)

    def fields(self) -> dict[str, JsonValue]:
        """What the model has beside, or instead of, the recipe's."""
        return {**(self.model_extra or {}), **self.overrides, "name": self.name}

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if "name" in self.overrides:
            raise ValueError("overrides must not hold the name: give it beside")
        return self


class RecipeAnswer(BaseModel):
    """A recipe. `fields` holds every field of the model but names and secrets."""

    id: str
    version: int
    name: str
    description: str
    engine_type: EngineType
    task: Task
    fields: dict[str, JsonValue]
    created_by: str
    created_at: datetime
    updated_at: datetime
    warnings: tuple[FieldWarning, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, warnings: tuple[FieldWarning, ...] = ()) -> "RecipeAnswer":
        shared = {field: getattr(recipe, field) for field in cls.model_fields if field != "warnings"}
        return cls.model_validate(shared | {"warnings": warnings})

    @classmethod
    def saved(cls, saved: Saved) -> "RecipeAnswer":
        return cls.of(saved.recipe, saved.warnings)


class RecipeList(BaseModel):
    """Oldest first. `next` goes into `after` for more."""

    items: list[RecipeAnswer]
    next: str | None = None
