"""Recipes: configurations to make models from, without names and secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import JsonValue

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import EngineType, Task
from cortex_contracts.events import RecipeCreatedV1, RecipeDeletedV1, RecipeUpdatedV1
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.model import check, describe, new_document
from cortex_registry.domain.submission import parse_submission

LEFT_OUT = ("name", "served_model_name", "aliases", "hf_token")
"""What belongs to one model: never part of a recipe."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A stored recipe. `fields` is the flat form of the admin API, every field present."""

    id: str
    version: int
    name: str
    description: str
    engine_type: EngineType
    task: Task
    fields: Mapping[str, JsonValue]
    created_by: str
    created_at: datetime
    updated_at: datetime


def fields_of_model(document: ModelDocumentV1) -> dict[str, JsonValue]:
    """A model's configuration as a recipe keeps it: every field but names and secrets."""
    return {name: value for name, value in describe(document).items() if name not in LEFT_OUT}


def checked_fields(
    fields: Mapping[str, JsonValue], models_root: str | None
) -> tuple[dict[str, JsonValue], tuple[FieldWarning, ...]]:
    """A recipe's fields after the rules for models; names and secrets are left out with a warning.

    Raises:
        DomainError: 422 as for a model.
    """
    warnings = [
        FieldWarning(field=name, code="left_out", message=f"{name} is no part of a recipe: it belongs to one model.")
        for name in LEFT_OUT
        if fields.get(name) not in (None, [], ())
    ]
    kept = {name: value for name, value in fields.items() if name not in LEFT_OUT}
    submission = parse_submission({**kept, "name": "recipe"})
    specification = check(submission.specification, models_root)
    document = new_document(specification, model_id=ModelId("recipe"), hf_token_sealed=None)
    return fields_of_model(document), (*warnings, *submission.warnings)


def model_fields(recipe: Recipe, overrides: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The description of a model made from a recipe; an override of null puts the field's own default back."""
    merged = {**recipe.fields, **overrides}
    return {name: value for name, value in merged.items() if value is not None}


def changed_recipe(
    recipe: Recipe, *, name: str, description: str, fields: Mapping[str, JsonValue], now: datetime
) -> tuple[Recipe, tuple[str, ...]]:
    """The next version, and the names of what changed; none when nothing did."""
    changed = [
        field
        for field, old, new in (("name", recipe.name, name), ("description", recipe.description, description))
        if old != new
    ]
    keys = recipe.fields.keys() | fields.keys()
    changed += sorted(key for key in keys if recipe.fields.get(key) != fields.get(key))
    after = replace(
        recipe,
        version=recipe.version + 1,
        name=name,
        description=description,
        engine_type=EngineType(str(fields["engine_type"])),
        task=Task(str(fields["task"])),
        fields=fields,
        updated_at=now,
    )
    return after, tuple(changed)


def created(recipe: Recipe) -> RecipeCreatedV1:
    return RecipeCreatedV1(id=recipe.id, name=recipe.name)


def updated(recipe: Recipe, changed: tuple[str, ...]) -> RecipeUpdatedV1:
    return RecipeUpdatedV1(id=recipe.id, name=recipe.name, changed=changed)


def deleted(recipe: Recipe) -> RecipeDeletedV1:
    return RecipeDeletedV1(id=recipe.id, name=recipe.name)
