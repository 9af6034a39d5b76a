"""Forward-only numbered SQL files, each applied once in a transaction of its own."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import asyncpg

from cortex_kit.errors import CortexError
from cortex_kit.logging import get_logger

log = get_logger()

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x436F7274_6D696772
_LOCK_WAIT_S = 120.0
_FILE_TIMEOUT_S = 600.0
_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       varchar(128) NOT NULL,
    sha256     char(64) NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class SchemaProblemError(CortexError):
    """The database's schema is not what the files say; the message says how."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Executor(Protocol):
    """The part of an asyncpg connection, pooled or not, that a check needs."""

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]: ...


def load_migrations() -> tuple[Migration, ...]:
    """The package's files in order.

    Raises:
        SchemaProblemError: a gap or a repetition in the numbers.
    """
    files = resources.files("cortex_registry").joinpath("migrations").iterdir()
    found = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in files
        if (match := _FILE.fullmatch(file.name)) is not None
    ]
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaProblemError("the migration files are not numbered 0001, 0002, ... without gaps")
    return tuple(found)


def outstanding(migrations: Sequence[Migration], applied: Mapping[int, str]) -> tuple[Migration, ...]:
    """Which files are to be applied, in order. Versions the files do not know are a newer service's: left alone.

    Raises:
        SchemaProblemError: a file was changed after it was applied, or one before an applied one is missing.
    """
    for migration in migrations:
        known = applied.get(migration.version)
        if known is not None and known != migration.sha256:
            raise SchemaProblemError(
                f"migration {migration.version:04} ({migration.name}) was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )
    missing = tuple(migration for migration in migrations if migration.version not in applied)
    last = max(applied, default=0)
    if missing and missing[0].version < last:
        raise SchemaProblemError(f"migration {missing[0].version:04} was never applied, but {last:04} was")
    return missing


async def check(connection: Executor) -> None:
    """Return when every migration of this version is applied, unchanged.

    Raises:
        SchemaProblemError: it is not so.
    """
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        raise SchemaProblemError("the database holds no Cortex schema")
    missing = outstanding(load_migrations(), await _applied(connection))
    if missing:
        names = ", ".join(f"{migration.version:04} ({migration.name})" for migration in missing)
        raise SchemaProblemError(f"the database lacks migration {names}")


async def migrate(
    connection: "asyncpg.Connection[asyncpg.Record]", migrations: Sequence[Migration] | None = None
) -> tuple[Migration, ...]:
    """Apply what is missing; returns it. Several may call it at once: the others wait, then find nothing to do.

    Raises:
        SchemaProblemError: as `outstanding`; nothing was applied.
        asyncpg.PostgresError: a file failed; it was rolled back, those before it stay.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_LOCK_WAIT_S)
    try:
        await connection.execute(_CREATE)
        files = load_migrations() if migrations is None else tuple(migrations)
        missing = outstanding(files, await _applied(connection))
        for migration in missing:
            await _apply(connection, migration)
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '10s'")
        await connection.execute(migration.sql, timeout=_FILE_TIMEOUT_S)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.sha256,
        )
    log.info("migration_applied", version=migration.version, name=migration.name)


async def _applied(connection: Executor) -> dict[int, str]:
    rows = await connection.fetch("SELECT version, sha256 FROM schema_migrations")
    return {row["version"]: row["sha256"] for row in rows}
