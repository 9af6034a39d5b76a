"""The event log in Postgres."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any

import asyncpg

from cortex_kit.errors import DomainError, PermanentError
from cortex_registry.adapters.postgres import Connection, Database, translated
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.eventlog import (
    PROGRESS_WINDOW_S,
    EventFilter,
    EventPage,
    LoggedEvent,
    NewEvent,
    topic_matches,
)

_SQL = load_queries("events")
CHANNEL = "cortex_events"
_LOCK = 0x436F7274_65766C67
_BEYOND_ANY = 2**63 - 1
_SCAN_TIMEOUT_S = 120.0
"""Counting through a full log takes seconds; nobody waits for it."""
_FIELDS = tuple(LoggedEvent.__dataclass_fields__)


class PostgresEventLog:
    """EventLog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[NewEvent]) -> int:
        if not events:
            return 0
        payload = json.dumps([_as_json(position, event) for position, event in enumerate(events)])
        try:
            async with self._database.transaction() as connection:
                # Released after the commit has become visible, so that sequences appear in their order.
                await connection.execute(_SQL["lock_log"], _LOCK)
                status = await connection.execute(_SQL["append"], payload, PROGRESS_WINDOW_S)
                await connection.execute(_SQL["notify"])
        except (DomainError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
            raise PermanentError(f"an event cannot be stored: {error}") from error
        return int(status.rsplit(" ", 1)[-1])

    async def page(self, wanted: EventFilter, *, after: int | None, newest_first: bool, limit: int) -> EventPage:
        async with self._database.connection() as connection:
            head = await connection.fetchrow(_SQL["head"])
            topics = await _topics(connection, wanted.topics)
            query = _SQL["newest_first" if newest_first else "oldest_first"]
            start = after if after is not None else (_BEYOND_ANY if newest_first else 0)
            rows = await connection.fetch(
                query,
                start,
                topics,
                wanted.model_id,
                wanted.replica_id,
                wanted.key_id,
                wanted.correlation_id,
                wanted.source,
                wanted.since,
                limit,
            )
        newest, pruned = (head["head"], head["pruned"]) if head is not None else (0, 0)
        return EventPage([event_from_row(row) for row in rows], newest, pruned)

    async def outdated(self, *, max_age_s: float, max_rows: int) -> int:
        async with self._database.connection() as connection:
            by_age = await connection.fetchval(_SQL["beyond_age"], max_age_s, timeout=_SCAN_TIMEOUT_S)
            by_number = await connection.fetchval(_SQL["beyond_cap"], max_rows, timeout=_SCAN_TIMEOUT_S)
        return max(by_age or 0, by_number or 0)

    async def prune(self, through: int, limit: int) -> int:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["mark_pruned"], through)
            status = await connection.execute(_SQL["prune"], through, limit)
        return int(status.rsplit(" ", 1)[-1])


class PostgresEventSession:
    """EventSession: notifications and statements live and die together."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._hint = asyncio.Event()

    async def listen(self) -> None:
        """Subscribe to commits."""
        with translated():
            await self._connection.execute("SET application_name = 'cortex-registry-events'")
            await self._connection.add_listener(CHANNEL, self._on_hint)
            self._connection.add_termination_listener(self._on_hint)

    def _on_hint(self, *_: object) -> None:
        self._hint.set()

    async def head(self) -> int:
        with translated():
            row = await self._connection.fetchrow(_SQL["head"])
        return row["head"] if row is not None else 0

    async def after(self, sequence: int, limit: int) -> Sequence[LoggedEvent]:
        with translated():
            rows = await self._connection.fetch(_SQL["after"], sequence, limit)
        return [event_from_row(row) for row in rows]

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._hint.wait()
        self._hint.clear()

    async def close(self) -> None:
        """Give the connection up at once."""
        try:
            await self._connection.close(timeout=1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self._connection.terminate()


class PostgresEventSource:
    """EventSource."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[PostgresEventSession]:
        session = PostgresEventSession(await self._database.dedicated())
        try:
            await session.listen()
            yield session
        finally:
            await session.close()


def event_from_row(row: Row) -> LoggedEvent:
    """A row of `event_log`."""
    values = {name: row[name] for name in _FIELDS}
    return LoggedEvent(**(values | {"data": json.loads(row["data"])}))


async def _topics(connection: Connection, patterns: Sequence[str]) -> list[str] | None:
    """The topics in the log that the patterns match, so that the database compares whole words; None for any."""
    if not patterns:
        return None
    rows = await connection.fetch(_SQL["topics"])
    return [row["topic"] for row in rows if topic_matches(patterns, row["topic"])]


def _as_json(position: int, event: NewEvent) -> dict[str, Any]:
    return asdict(event) | {"position": position, "time": event.time.isoformat(), "data": dict(event.data)}
