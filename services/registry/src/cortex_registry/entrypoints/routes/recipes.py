"""Routes of recipes."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from cortex_contracts.enums import EngineType, Task
from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.models import ONE_MODEL
from cortex_registry.entrypoints.schemas.models import ModelAnswer, changed_answer
from cortex_registry.entrypoints.schemas.recipes import (
    FromModelRequest,
    ModelFromRecipeRequest,
    RecipeAnswer,
    RecipeList,
    RecipePatchRequest,
    RecipeRequest,
)
from cortex_registry.handlers.recipes import RecipeFilter, RecipeService


class RecipeRoutes:
    """/admin/recipes. A recipe is named by id or name."""

    def __init__(self, service: RecipeService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("recipes")
        read, write, one = Right.RECIPES_READ, Right.RECIPES_WRITE, "/recipes/{recipe}"
        routes.add("POST", "/recipes", self.create, write, status_code=201)
        routes.add("GET", "/recipes", self.list_of, read)
        routes.add("POST", "/recipes/from-model/{reference:path}", self.create_from_model, write, status_code=201)
        routes.add(
            "POST", f"{one}/models", self.make_model, Right.MODELS_WRITE, status_code=201, response_model=ONE_MODEL
        )
        routes.add("GET", one, self.get, read)
        routes.add("PATCH", one, self.update, write)
        routes.add("DELETE", one, self.delete, write, status_code=204)
        return routes.router

    async def create(self, body: RecipeRequest, caller: CallerOf, response: Response) -> RecipeAnswer:
        """Keep a configuration to make models from."""
        saved = await self._service.create(body.draft(), caller)
        response.headers["Location"] = f"/admin/recipes/{saved.recipe.id}"
        show_version(response, saved.recipe.version)
        return RecipeAnswer.saved(saved)

    async def create_from_model(
        self, reference: str, body: FromModelRequest, caller: CallerOf, response: Response
    ) -> RecipeAnswer:
        """Keep a model's configuration: every field but names and secrets."""
        saved = await self._service.create_from_model(reference, body.name, body.description, caller)
        response.headers["Location"] = f"/admin/recipes/{saved.recipe.id}"
        show_version(response, saved.recipe.version)
        return RecipeAnswer.saved(saved)

    async def list_of(
        self,
        q: Annotated[str | None, Query(max_length=256, description="Looked for in name and description.")] = None,
        engine_type: EngineType | None = None,
        task: Task | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    ) -> RecipeList:
        """Recipes, oldest first."""
        wanted = RecipeFilter(q or None, engine_type, task, limit, str(after) if after is not None else None)
        found = await self._service.list_of(wanted)
        return RecipeList(
            items=[RecipeAnswer.of(recipe) for recipe in found], next=found[-1].id if len(found) == limit else None
        )

    async def get(self, recipe: str, response: Response) -> RecipeAnswer:
        """One recipe."""
        found = await self._service.get(recipe)
        show_version(response, found.version)
        return RecipeAnswer.of(found)

    async def update(
        self, recipe: str, body: RecipePatchRequest, caller: CallerOf, expected: IfMatch, response: Response
    ) -> RecipeAnswer:
        """Change what is given."""
        saved = await self._service.update(recipe, body.patch(), caller, expected=expected)
        show_version(response, saved.recipe.version)
        return RecipeAnswer.saved(saved)

    async def delete(self, recipe: str, caller: CallerOf, expected: IfMatch) -> None:
        """Forget a recipe; models made from it stay."""
        await self._service.delete(recipe, caller, expected=expected)

    async def make_model(
        self, recipe: str, body: ModelFromRecipeRequest, caller: CallerOf, response: Response
    ) -> ModelAnswer:
        """A new model, stopped, as the recipe says, with its own name and whatever is given."""
        changed = await self._service.make_model(recipe, body.fields(), caller)
        response.headers["Location"] = f"/admin/models/{changed.observed.model.id}"
        show_version(response, changed.observed.model.version)
        return changed_answer(changed)
