"""What an administrator does with recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from cortex_contracts.enums import EngineType, Task
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.recipes import (
    Recipe,
    changed_recipe,
    checked_fields,
    created,
    deleted,
    fields_of_model,
    model_fields,
    updated,
)
from cortex_registry.domain.submission import parse_submission
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.handlers.models import Changed, ModelService
from cortex_registry.handlers.models_editor import require_own
from cortex_registry.ports import Act

log = get_logger()
CONFLICT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RecipeFilter:
    """Which recipes; `text` is looked for in name and description, `after` is the last id of the page before."""

    text: str | None = None
    engine_type: EngineType | None = None
    task: Task | None = None
    limit: int = 100
    after: str | None = None


class RecipeRepository(Protocol):
    """Recipes in the database. Every method raises DatabaseUnavailableError."""

    async def find(self, reference: str) -> Recipe | None:
        """By id, or by name whatever its case."""
        ...

    async def list_of(self, wanted: RecipeFilter) -> Sequence[Recipe]:
        """Oldest first."""
        ...

    async def add(self, recipe: Recipe, act: Act) -> None:
        """Row, audit and outbox line, or nothing; raises DomainError 409 `name_taken`."""
        ...

    async def replace(self, recipe: Recipe, act: Act) -> bool:
        """Store the next version as `add` does; False when somebody else stored that version first."""
        ...

    async def remove(self, recipe: Recipe, act: Act) -> bool:
        """Delete it if the row still has its version."""
        ...


@dataclass(frozen=True, slots=True)
class RecipeDraft:
    """What is given to make a recipe."""

    name: str
    description: str
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class RecipePatch:
    """What is given to change one; None leaves it. Of `fields` each named one is replaced, null puts its default back."""

    name: str | None
    description: str | None
    fields: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Saved:
    """A recipe after an act."""

    recipe: Recipe
    warnings: tuple[FieldWarning, ...] = ()


class RecipeService:
    """Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self, repository: RecipeRepository, models: ModelService, *, models_root: str | None, clock: Clock
    ) -> None:
        self._repository = repository
        self._models = models
        self._models_root = models_root
        self._clock = clock

    async def create(self, draft: RecipeDraft, caller: Caller) -> Saved:
        """Keep a configuration; the files it names need not be there yet."""
        fields, warnings = checked_fields(draft.fields, self._models_root)
        now = self._clock.now()
        recipe = Recipe(
            id=uuid7(),
            version=1,
            name=draft.name,
            description=draft.description,
            engine_type=EngineType(str(fields["engine_type"])),
            task=Task(str(fields["task"])),
            fields=fields,
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
        )
        act = Act(caller, "recipe.create", created(recipe), after={"name": recipe.name, **fields})
        await self._repository.add(recipe, act)
        log.info("recipe_created", recipe_id=recipe.id)
        return Saved(recipe, warnings)

    async def create_from_model(self, reference: str, name: str, description: str, caller: Caller) -> Saved:
        """Keep a model's configuration, every field but names and secrets."""
        model = (await self._models.get(reference)).model
        require_own(model)
        return await self.create(RecipeDraft(name, description, fields_of_model(model.document)), caller)

    async def list_of(self, wanted: RecipeFilter) -> Sequence[Recipe]:
        return await self._repository.list_of(wanted)

    async def get(self, reference: str) -> Recipe:
        """By id or name; raises DomainError 404 `recipe_not_found`."""
        recipe = await self._repository.find(reference)
        if recipe is None:
            message = f"There is no recipe {reference[:200]!r}. List them with GET /admin/recipes."
            raise DomainError("recipe_not_found", message, status=404)
        return recipe

    async def update(self, reference: str, patch: RecipePatch, caller: Caller, *, expected: Expected = None) -> Saved:
        """Change what is given."""
        for _ in range(CONFLICT_ATTEMPTS):
            recipe = await self.get(reference)
            require_version(expected, recipe.version)
            merged = {**recipe.fields, **patch.fields}
            given = {name: value for name, value in merged.items() if value is not None}
            fields, warnings = checked_fields(given, self._models_root)
            after, changed = changed_recipe(
                recipe,
                name=recipe.name if patch.name is None else patch.name,
                description=recipe.description if patch.description is None else patch.description,
                fields=fields,
                now=self._clock.now(),
            )
            if not changed:
                return Saved(recipe, warnings)
            before = {name: _value(recipe, name) for name in changed}
            now = {name: _value(after, name) for name in changed}
            act = Act(caller, "recipe.update", updated(after, changed), changed, before, now)
            if await self._repository.replace(after, act):
                log.info("recipe_updated", recipe_id=recipe.id, changed=changed)
                return Saved(after, warnings)
        raise _too_busy()

    async def delete(self, reference: str, caller: Caller, *, expected: Expected = None) -> None:
        """Forget a recipe; models made from it stay."""
        for _ in range(CONFLICT_ATTEMPTS):
            recipe = await self.get(reference)
            require_version(expected, recipe.version)
            before: dict[str, JsonValue] = {"name": recipe.name, **recipe.fields}
            if await self._repository.remove(recipe, Act(caller, "recipe.delete", deleted(recipe), before=before)):
                log.info("recipe_deleted", recipe_id=recipe.id)
                return
        raise _too_busy()

    async def make_model(self, reference: str, overrides: Mapping[str, JsonValue], caller: Caller) -> Changed:
        """A new model, stopped, as the recipe says but for `overrides`, which name it."""
        recipe = await self.get(reference)
        return await self._models.create(parse_submission(model_fields(recipe, overrides)), caller)


def _value(recipe: Recipe, name: str) -> JsonValue:
    own: dict[str, JsonValue] = {"name": recipe.name, "description": recipe.description}
    return own[name] if name in own else recipe.fields.get(name)


def _too_busy() -> DomainError:
    return DomainError("conflict", "The recipe was changed by others meanwhile. Try again.", status=409)
