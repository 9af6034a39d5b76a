"""Dumps of the database by COPY, in one snapshot, and restores in one transaction. Needs no program beside this one."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import date
from typing import Any, cast

import asyncpg

from cortex_kit.errors import DomainError
from cortex_registry.adapters.deployment_jobs import settle_within
from cortex_registry.adapters.outbox import CHANNEL, REPLACED, write_audit
from cortex_registry.adapters.postgres import Connection, Database, translated
from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.deployment import (
    FLEETING_TABLES,
    DatabaseDump,
    DumpedTable,
    Job,
    Table,
    check_tables,
    damaged,
    dumped_tables,
)

_SQL = load_queries("deployment")
LOCK_WAIT_S = 60
"""How long a restore waits for others to finish with a table."""

Write = Callable[[bytes], Coroutine[Any, Any, None]]
Read = Callable[[DumpedTable], AsyncIterator[bytes]]


class PostgresSnapshot:
    """Everything as it was at one moment."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def tables(self, *, usage: bool) -> tuple[Table, ...]:
        """What to dump, in an order in which it can be restored."""
        return dumped_tables(await _tables(self._connection), usage=usage)

    async def copy(self, table: Table, write: Write) -> int:
        """Hand the rows of a table to `write`, as COPY's text format; returns how many there are."""
        columns = ", ".join(_quoted(column) for column in table.columns)
        with translated():
            status = await self._connection.copy_from_query(
                f"SELECT {columns} FROM {_quoted(table.name)}",
                output=write,
                timeout=self._timeout_s,
            )
        return int(status.rpartition(" ")[2])

    async def usage_months(self) -> tuple[str, ...]:
        """First days of the months that usage has partitions for."""
        with translated():
            return tuple(row["month"] for row in await self._connection.fetch(_SQL["usage_months"]))

    async def migrations(self) -> Mapping[int, str]:
        """What the schema is made of."""
        with translated():
            return {row["version"]: row["sha256"] for row in await self._connection.fetch(_SQL["applied_migrations"])}


class PostgresDumps:
    """DumpSource and DumpTarget."""

    def __init__(self, database: Database, *, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s

    async def migrations(self) -> Mapping[int, str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["applied_migrations"])
        return {row["version"]: row["sha256"] for row in rows}

    async def running_models(self) -> Sequence[str]:
        async with self._database.connection() as connection:
            return [row["name"] for row in await connection.fetch(_SQL["running_models"])]

    async def table_bytes(self, *, usage: bool) -> int:
        async with self._database.connection() as connection:
            wanted = {table.name for table in dumped_tables(await _tables(connection), usage=usage)}
            rows = await connection.fetch(_SQL["table_bytes"])
        return sum(row["bytes"] for row in rows if row["name"] in wanted)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[PostgresSnapshot]:
        async with self._working("backup") as connection:
            with translated():
                transaction = connection.transaction(isolation="repeatable_read", readonly=True)
                await transaction.start()
            yield PostgresSnapshot(connection, self._timeout_s)

    async def replace(self, dump: DatabaseDump, read: Read, job: Job) -> None:
        """Put a dump in the place of what there is, and settle the job, in one transaction: all or nothing.

        Raises:
            DomainError: 422 `damaged_backup`; 409 `models_running`, `job_lost`. Nothing was changed.
            UnavailableError: Postgres went away or a table is in use. Nothing was changed.
        """
        async with self._working("restore") as connection:
            with translated():
                try:
                    async with connection.transaction():
                        await self._replace(connection, dump, read, job)
                except (
                    asyncpg.IntegrityConstraintViolationError,
                    asyncpg.DataError,
                    asyncpg.SyntaxOrAccessError,
                ) as error:
                    raise damaged(f"Postgres refuses it ({type(error).__name__}: {error})") from error

    async def _replace(self, connection: Connection, dump: DatabaseDump, read: Read, job: Job) -> None:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
        tables = await _tables(connection)
        check_tables(dump, tables)
        names = [table.name for table in dump.tables]
        emptied = ", ".join(_quoted(name) for name in (*names, *sorted(FLEETING_TABLES)))
        await connection.execute(f"LOCK TABLE {emptied} IN ACCESS EXCLUSIVE MODE", timeout=LOCK_WAIT_S + 10.0)
        if running := [row["name"] for row in await connection.fetch(_SQL["running_models"])]:
            message = f"{', '.join(running[:5])} was asked to run meanwhile. Nothing was changed."
            raise DomainError("models_running", message, status=409)
        highest = await _sequences(connection)
        await connection.execute(f"TRUNCATE {emptied}", timeout=self._timeout_s)
        for month in dump.usage_months if dump.usage else ():
            await connection.execute("SELECT usage_make_month($1)", date.fromisoformat(month))
        for table in dump.tables:
            status = await connection.copy_to_table(
                table.name, source=read(table), columns=list(table.columns), timeout=self._timeout_s
            )
            if (rows := int(status.rpartition(" ")[2])) != table.rows:
                raise damaged(f"{table.name} has {rows} rows instead of {table.rows}")
        await _raise_sequences(connection, highest)
        await self._afterwards(connection, job)

    async def _afterwards(self, connection: Connection, job: Job) -> None:
        """What a restore must not bring back: engines that start by themselves, deliveries that were made."""
        await connection.execute(_SQL["settle_webhooks"], timeout=self._timeout_s)
        if not job.restore.start:
            await connection.execute(
                _SQL["stop_models"], job.caller.actor, job.caller.request_id, timeout=self._timeout_s
            )
        await write_audit(
            connection,
            job.caller,
            "database.restore",
            f"deployment_job/{job.id}",
            {"folder": job.folder, **job.options},
        )
        await settle_within(connection, job)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, REPLACED)

    @contextlib.asynccontextmanager
    async def _working(self, purpose: str) -> AsyncGenerator[Connection]:
        """A connection of its own. A body that is cancelled leaves it in the middle of a COPY: it is cut, not asked."""
        connection = await self._database.dedicated(purpose)
        try:
            yield cast(Connection, connection)
        except BaseException:
            connection.terminate()  # Postgres rolls back
            raise
        else:
            with translated():
                await connection.close(timeout=5)


async def _tables(connection: Connection) -> tuple[Table, ...]:
    with translated():
        rows = await connection.fetch(_SQL["tables"])
    return tuple(Table(row["name"], tuple(row["columns"]), frozenset(row["refers_to"])) for row in rows)


async def _sequences(connection: Connection) -> Mapping[str, tuple[str, str, int]]:
    """Where each counter stands: `sequence -> (table, column, last value)`. A number is never given twice."""
    found: dict[str, tuple[str, str, int]] = {}
    for row in await connection.fetch(_SQL["sequences"]):
        last = await connection.fetchval(f"SELECT last_value FROM {row['sequence']}")
        found[row["sequence"]] = (row["table_name"], row["column_name"], last)
    return found


async def _raise_sequences(connection: Connection, before: Mapping[str, tuple[str, str, int]]) -> None:
    for sequence, (table, column, last) in before.items():
        value = f"greatest($2::bigint, (SELECT max({_quoted(column)}) FROM {_quoted(table)}))"
        await connection.execute(f"SELECT setval($1::text::regclass, {value})", sequence, last)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
