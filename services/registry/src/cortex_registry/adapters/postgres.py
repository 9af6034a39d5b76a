"""The connection pool, deadlines, and Postgres errors in our words."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger
from cortex_registry.adapters.claims import mark_committed
from cortex_registry.adapters.migrations import SchemaProblemError, check
from cortex_registry.errors import DatabaseUnavailableError, SchemaError

log = get_logger()
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"  # the class takes no parameters when running
PING_S = 2.0

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.LockNotAvailableError,
    OSError,
    TimeoutError,
)


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Turn Postgres being away into DatabaseUnavailableError, and a value it cannot hold into a DomainError."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseUnavailableError(error) from error
    except asyncpg.DataError as error:
        raise DomainError("invalid_request", f"The database cannot hold a value: {error}.", status=422) from error


class Database:
    """Owns the pool. Made without a connection, so that a service starts while Postgres is away."""

    def __init__(self, dsn: SecretStr, *, size: int, acquire_timeout_s: float, command_timeout_s: float) -> None:
        self._dsn = dsn
        self._size = size
        self._acquire_timeout_s = acquire_timeout_s
        self._command_timeout_s = command_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._schema_checked = False
        self._away: str | None = "Postgres has not been reached yet"

    async def open(self) -> None:
        """Make the pool; connects to nothing."""
        self._pool = await asyncpg.create_pool(
            self._dsn.get_secret_value(),
            min_size=0,
            max_size=self._size,
            timeout=self._acquire_timeout_s,
            command_timeout=self._command_timeout_s,
            server_settings={"application_name": "cortex-registry", "timezone": "UTC"},
        )

    async def close(self) -> None:
        """Close the pool, by force after two seconds."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), timeout=2)
        except (*_AWAY, asyncpg.PostgresError):
            pool.terminate()

    def readiness(self) -> str | None:
        """Why the database cannot be used, or None."""
        return self._away

    async def run(self) -> None:
        """Check the schema as soon as Postgres is there, then watch it; a task of the service.

        Raises:
            SchemaError: the database is not at the schema this version needs.
        """
        while True:
            try:
                await self._ping()
            except DatabaseUnavailableError as error:
                self._notice(error.message)
            except SchemaProblemError as problem:
                log.error("schema_wrong", problem=str(problem), fix="run: python -m cortex_registry migrate")
                raise SchemaError(str(problem)) from problem
            else:
                self._notice(None)
            await asyncio.sleep(PING_S if self._schema_checked else 0.2)

    async def _ping(self) -> None:
        async with self._acquired() as connection:
            if self._schema_checked:
                await connection.execute("SELECT 1")
                return
            await check(connection)
            self._schema_checked = True
            log.info("schema_checked")

    def _notice(self, away: str | None) -> None:
        if (away is None) != (self._away is None):
            log.info("database_reachable") if away is None else log.warning("database_unavailable", reason=away)
        self._away = away

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for reading.

        Raises:
            DatabaseUnavailableError: within the acquire timeout, or a statement's.
        """
        if not self._schema_checked:
            raise DatabaseUnavailableError("its schema has not been checked yet")
        async with self._acquired() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection inside one transaction: committed at the end, rolled back on any error.

        What the request's Idempotency-Key stands for is committed with it (`claims.py`).
        """
        async with self.connection() as connection, connection.transaction():
            yield connection
            await mark_committed(connection)

    @contextlib.asynccontextmanager
    async def _acquired(self) -> AsyncGenerator[Connection]:
        if self._pool is None:
            raise DatabaseUnavailableError("the service is stopping")
        with translated():
            async with self._pool.acquire(timeout=self._acquire_timeout_s) as connection:
                yield connection

    async def dedicated(self, purpose: str = "relay") -> "asyncpg.Connection[asyncpg.Record]":
        """A connection outside the pool, for a session lock, LISTEN or long work; the caller closes it."""
        if not self._schema_checked:
            raise DatabaseUnavailableError("its schema has not been checked yet")
        with translated():
            return await asyncpg.connect(
                self._dsn.get_secret_value(),
                timeout=self._acquire_timeout_s,
                command_timeout=self._command_timeout_s,
                server_settings={
                    "application_name": f"cortex-registry-{purpose}",
                    "timezone": "UTC",
                    # A relay whose host vanished must not keep the lock for the default two hours.
                    "tcp_keepalives_idle": "5",
                    "tcp_keepalives_interval": "2",
                    "tcp_keepalives_count": "3",
                },
            )
