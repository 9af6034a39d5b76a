"""The migration job: wait for Postgres, then migrate or check."""

import asyncio

import asyncpg
from pydantic import SecretStr

from cortex_kit.logging import get_logger
from cortex_registry.adapters.migrations import SchemaProblemError, check, migrate

log = get_logger()
CONNECT_TIMEOUT_S = 5.0
RETRY_S = 0.2


async def run_migrations(dsn: SecretStr, *, only_check: bool, wait_s: float) -> bool:
    """Bring the database to this version's schema, or only look; True when it is there. Failures are logged."""
    try:
        connection = await _connect(dsn, wait_s)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        log.error("database_unavailable", reason=f"{type(error).__name__}: {error}")
        return False
    try:
        if only_check:
            await check(connection)
        else:
            applied = await migrate(connection)
            log.info("schema_up_to_date", applied=[f"{one.version:04}_{one.name}" for one in applied])
    except SchemaProblemError as problem:
        log.error("schema_wrong", problem=str(problem))
        return False
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        log.error("migration_failed", error=f"{type(error).__name__}: {error}")
        return False
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    return True


async def _connect(dsn: SecretStr, wait_s: float) -> "asyncpg.Connection[asyncpg.Record]":
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            return await asyncpg.connect(dsn.get_secret_value(), timeout=CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(RETRY_S)
