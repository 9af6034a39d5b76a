"""Recipes in Postgres."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from cortex_contracts.enums import EngineType, Task
from cortex_kit.errors import DomainError
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.recipes import Recipe
from cortex_registry.domain.text import is_id
from cortex_registry.handlers.recipes import RecipeFilter
from cortex_registry.ports import Act

_SQL = load_queries("recipes")


class PostgresRecipes:
    """RecipeRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, reference: str) -> Recipe | None:
        query = _SQL["find_recipe_by_id"] if is_id(reference) else _SQL["find_recipe_by_name"]
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, reference)
        return _recipe(row) if row is not None else None

    async def list_of(self, wanted: RecipeFilter) -> Sequence[Recipe]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _SQL["list_recipes"],
                wanted.after,
                wanted.text,
                wanted.engine_type.value if wanted.engine_type is not None else None,
                wanted.task.value if wanted.task is not None else None,
                wanted.limit,
            )
        return [_recipe(row) for row in rows]

    async def add(self, recipe: Recipe, act: Act) -> None:
        async with self._writing(recipe) as connection:
            await connection.execute(
                _SQL["insert_recipe"],
                recipe.id,
                recipe.version,
                *_values(recipe),
                recipe.created_by,
                recipe.created_at,
                recipe.updated_at,
            )
            await write_act(connection, Aggregate.RECIPE, recipe.id, recipe.version, act)

    async def replace(self, recipe: Recipe, act: Act) -> bool:
        async with self._writing(recipe) as connection:
            found = await connection.fetchval(
                _SQL["update_recipe"],
                recipe.id,
                recipe.version - 1,
                recipe.version,
                *_values(recipe),
                recipe.updated_at,
            )
            if found is None:
                return False
            await write_act(connection, Aggregate.RECIPE, recipe.id, recipe.version, act)
        return True

    async def remove(self, recipe: Recipe, act: Act) -> bool:
        async with self._database.transaction() as connection:
            if await connection.fetchval(_SQL["delete_recipe"], recipe.id, recipe.version) is None:
                return False
            await write_act(connection, Aggregate.RECIPE, recipe.id, recipe.version + 1, act)
        return True

    @asynccontextmanager
    async def _writing(self, recipe: Recipe) -> AsyncGenerator[Connection]:
        try:
            async with self._database.transaction() as connection:
                yield connection
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "recipes_name_key":
                raise
            message = f"There is a recipe {recipe.name!r} already."
            raise DomainError("name_taken", message, status=409, details={"name": recipe.name}) from error


def _values(recipe: Recipe) -> tuple[str, str, str, str, str]:
    fields = json.dumps(dict(recipe.fields))
    return (recipe.name, recipe.description, recipe.engine_type.value, recipe.task.value, fields)


def _recipe(row: Row) -> Recipe:
    return Recipe(
        id=str(row["id"]),
        version=row["version"],
        name=row["name"],
        description=row["description"],
        engine_type=EngineType(row["engine_type"]),
        task=Task(row["task"]),
        fields=json.loads(row["fields"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
