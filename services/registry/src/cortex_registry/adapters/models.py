"""Models, their names, revisions and announced states in Postgres."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from cortex_contracts.base import ModelId
from cortex_contracts.enums import EngineType, ModelState
from cortex_contracts.events import ModelStateChangedV1
from cortex_kit.errors import DomainError
from cortex_registry.adapters.outbox import write_act, write_event
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import model_from_row, model_to_json, options_to_json
from cortex_registry.domain.identity import SYSTEM
from cortex_registry.domain.model import Model
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.state import Projected
from cortex_registry.domain.text import is_id
from cortex_registry.ports import Act

_SQL = load_queries("models")
_TAKEN = re.compile(r"\(name\)=\((.*)\) already exists")


class _LostRaceError(Exception):
    """Rolls a transaction back."""


class PostgresModels:
    """ModelRepository and Announcements."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, reference: str) -> Model | None:
        query = _SQL["find_model_by_id"] if is_id(reference) else _SQL["find_model_by_name"]
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, reference)
        return model_from_row(row) if row is not None else None

    async def list_all(self, *, archived: bool = False) -> Sequence[Model]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_models" if archived else "list_live_models"])
        return [model_from_row(row) for row in rows]

    async def add(self, model: Model, act: Act) -> None:
        async with self._writing() as connection:
            await self._add(connection, model, act)

    async def replace(self, model: Model, act: Act) -> bool:
        async with self._writing() as connection:
            return await self._replace(connection, model, act)

    async def write_all(self, new: Sequence[tuple[Model, Act]], changed: Sequence[tuple[Model, Act]]) -> bool:
        try:
            async with self._writing() as connection:
                # In one order everywhere, so that two of these never wait for each other.
                for model, act in sorted(changed, key=lambda one: one[0].id):
                    if not await self._replace(connection, model, act):
                        raise _LostRaceError
                for model, act in new:
                    await self._add(connection, model, act)
        except _LostRaceError:
            return False
        return True

    async def remove(self, model: Model, act: Act) -> bool:
        async with self._writing() as connection:
            if await connection.fetchval(_SQL["delete_model"], model.id, model.version) is None:
                return False
            # A deletion is a version too, so that nobody takes a late document for a newer one.
            await self._write_revision(connection, model, model.version + 1, act)
            await write_act(connection, Aggregate.MODEL, model.id, model.version + 1, act)
        return True

    async def load(self) -> Mapping[ModelId, ModelState]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_announced"])
        return {ModelId(str(row["model_id"])): ModelState(row["state"]) for row in rows}

    async def announce(self, model_id: ModelId, projected: Projected) -> bool:
        async with self._database.transaction() as connection:
            version = await connection.fetchval(_SQL["lock_model"], model_id)
            if version is None:
                return False
            row = await connection.fetchrow(_SQL["find_announced"], model_id)
            previous = ModelState(row["state"]) if row is not None else None
            if previous is projected.state:
                return False
            await connection.execute(_SQL["upsert_announced"], model_id, projected.state.value, projected.since)
            event = ModelStateChangedV1(
                model_id=model_id,
                previous=previous,
                state=projected.state,
                reason=projected.reason,
                since=projected.since,
            )
            act = Act(SYSTEM, "state_changed", event, cause=projected.cause)
            await write_event(connection, Aggregate.MODEL, model_id, version, act)
        return True

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[Connection]:
        try:
            async with self._database.transaction() as connection:
                yield connection
        except asyncpg.DeadlockDetectedError as error:
            # Two changes that take each other's names: Postgres ends one of them.
            message = "The model was changed by others meanwhile. Try again."
            raise DomainError("conflict", message, status=409) from error
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "served_names_pkey":
                raise
            match = _TAKEN.search(error.detail or "")
            name = match[1] if match else "this name"
            message = f"{name!r} is already the served name or an alias of another model."
            raise DomainError("name_taken", message, status=409, details={"name": name}) from error

    async def _add(self, connection: Connection, model: Model, act: Act) -> None:
        model = _caused(model, act)
        await connection.execute(_SQL["insert_model"], model_to_json(model))
        await self._write_rest(connection, model, act)

    async def _replace(self, connection: Connection, model: Model, act: Act) -> bool:
        model = _caused(model, act)
        found = await connection.fetchval(_SQL["update_model"], model_to_json(model), model.id, model.version - 1)
        if found is None:
            return False
        await connection.execute(_SQL["clear_served_names"], model.id)
        await self._write_rest(connection, model, act)
        return True

    async def _write_rest(self, connection: Connection, model: Model, act: Act) -> None:
        llamacpp = model.document.engine_type is EngineType.LLAMACPP
        query = _SQL["set_llamacpp_options" if llamacpp else "set_vllm_options"]
        await connection.execute(query, options_to_json(model), model.id)
        await connection.execute(_SQL["insert_served_names"], sorted(model.names), model.id)
        await self._write_revision(connection, model, model.version, act)
        await write_act(connection, Aggregate.MODEL, model.id, model.version, act)

    async def _write_revision(self, connection: Connection, model: Model, version: int, act: Act) -> None:
        document = model.document.model_dump_json()
        await connection.execute(
            _SQL["insert_revision"],
            model.id,
            version,
            act.action,
            act.caller.actor,
            list(act.changed),
            document,
            act.caller.request_id,
        )


def _caused(model: Model, act: Act) -> Model:
    """The version that this act makes, so that whatever follows from it can name its cause."""
    cause = {"correlation_id": act.caller.request_id or act.event_id, "causation_id": act.event_id}
    return replace(model, document=model.document.model_copy(update=cause))
