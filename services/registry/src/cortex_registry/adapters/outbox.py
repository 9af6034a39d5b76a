"""The outbox table: written with every change, read by the one relay."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

import asyncpg

from cortex_contracts.base import ContractModel
from cortex_contracts.documents import Document
from cortex_contracts.events import EVENT_BY_TYPE
from cortex_registry.adapters.postgres import Connection, Database, translated
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row, key_from_row, model_from_row
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.outbox import Aggregate, Backlog, OutboxLine
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.ports import Act

_SQL = load_queries("outbox")
_MODELS = load_queries("models")
_KEYS = load_queries("keys")
CHANNEL = "cortex_outbox"
REPLACED = "replaced"
"""What is notified when everything may differ from what the buckets hold."""
_LOCK = 0x436F7274_72656C61


async def write_act(connection: Connection, aggregate: Aggregate, aggregate_id: str, version: int, act: Act) -> None:
    """Audit entry and outbox line of a change; call inside its transaction, after the aggregate's row was written."""
    detail = {"changed": list(act.changed), "before": dict(act.before), "after": dict(act.after)}
    told = {name: value for name, value in detail.items() if value}
    await write_audit(connection, act.caller, act.action, f"{aggregate}/{aggregate_id}", told)
    await write_event(connection, aggregate, aggregate_id, version, act)


async def write_audit(
    connection: Connection, caller: Caller, action: str, subject: str, detail: Mapping[str, object]
) -> None:
    """The audit entry alone, for what is no change of an aggregate."""
    await connection.execute(
        _SQL["insert_audit"],
        caller.actor,
        action,
        subject,
        json.dumps(detail),
        caller.request_id,
        caller.identity.user_id,
        caller.address,
    )


async def write_event(connection: Connection, aggregate: Aggregate, aggregate_id: str, version: int, act: Act) -> None:
    """The outbox line alone."""
    await connection.execute(
        _SQL["insert_outbox"],
        act.event_id,
        aggregate.value,
        aggregate_id,
        version,
        act.event.type_name(),
        _payload(act.event),
        act.correlation_id,
        act.cause.causation_id,
    )


def _payload(event: ContractModel) -> str:
    return event.model_dump_json()


class PostgresOutboxSession:
    """An OutboxSession over one connection: lock, notifications and statements live and die together."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._hint = asyncio.Event()
        self._replaced = False

    async def listen(self) -> None:
        """Subscribe to commits."""
        with translated():
            await self._connection.add_listener(CHANNEL, self._on_notification)
            self._connection.add_termination_listener(self._on_termination)

    def _on_notification(self, *told: object) -> None:
        self._replaced = self._replaced or told[-1] == REPLACED
        self._hint.set()

    def _on_termination(self, *_: object) -> None:
        self._hint.set()

    async def lead(self) -> bool:
        with translated():
            return bool(await self._connection.fetchval(_SQL["try_lead"], _LOCK))

    async def pending(self, limit: int) -> Sequence[OutboxLine]:
        if self._replaced:
            # Whoever leads next compares everything, first of all.
            raise DatabaseUnavailableError("the database was restored from a backup")
        with translated():
            rows = await self._connection.fetch(_SQL["pending"], limit)
        return [_line(row) for row in rows]

    async def documents(self, aggregate: Aggregate, ids: Collection[str] | None = None) -> Mapping[str, Document]:
        with translated():
            if aggregate is Aggregate.MODEL:
                rows = await self._rows(_MODELS["list_live_models"], _MODELS["find_live_models"], ids)
                return {model.id: model.document for model in map(model_from_row, rows)}
            rows = await self._rows(_KEYS["list_live_keys"], _KEYS["find_live_keys"], ids)
            return {key.id: key.document for key in map(key_from_row, rows)}

    async def _rows(self, every: str, some: str, ids: Collection[str] | None) -> Sequence[Row]:
        if ids is None:
            return await self._connection.fetch(every)
        return await self._connection.fetch(some, list(ids))

    async def settle(self, lines: Sequence[OutboxLine]) -> None:
        with translated():
            await self._connection.execute(_SQL["settle"], [line.seq for line in lines])

    async def backlog(self) -> Backlog:
        with translated():
            row = await self._connection.fetchrow(_SQL["backlog"])
        return Backlog(row["rows"], row["age_s"]) if row is not None else Backlog(0, 0.0)

    async def raise_version(self, aggregate: Aggregate, aggregate_id: str, above: int) -> None:
        sql = _MODELS["raise_model_version"] if aggregate is Aggregate.MODEL else _KEYS["raise_key_version"]
        with translated():
            await self._connection.execute(sql, aggregate_id, above)

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):  # wait_for may swallow a cancellation (cpython issue 86296)
                await self._hint.wait()
        self._hint.clear()

    async def close(self) -> None:
        """Give the lock up at once."""
        try:
            await self._connection.close(timeout=1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self._connection.terminate()


def _line(row: Row) -> OutboxLine:
    return OutboxLine(
        seq=row["seq"],
        event_id=str(row["event_id"]),
        aggregate=Aggregate(row["aggregate"]),
        aggregate_id=str(row["aggregate_id"]),
        version=row["aggregate_version"],
        event=EVENT_BY_TYPE[row["event_type"]].model_validate_json(row["data"]),
        created_at=row["created_at"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
    )


class PostgresOutboxSource:
    """Opens sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[PostgresOutboxSession]:
        session = PostgresOutboxSession(await self._database.dedicated())
        try:
            await session.listen()
            yield session
        finally:
            await session.close()
