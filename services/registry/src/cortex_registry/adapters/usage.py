"""Usage records into Postgres: each once, and once into the sums of its hour."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import DomainError, PermanentError
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.text import is_id
from cortex_registry.domain.usage_periods import day_of, lock_number, month_of
from cortex_registry.errors import DatabaseUnavailableError

_SQL = load_queries("usage")
LOCK_SPACE = 1431519559
"""First half of the advisory locks of usage; the second is a period's `lock_number`."""


class PostgresUsage:
    """UsageRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, records: Sequence[UsageRecordedV1]) -> int:
        try:
            async with self._database.transaction() as connection:
                return await _insert(connection, records)
        except asyncpg.CheckViolationError as error:
            # Its month was dropped between the look and the insert.
            raise DatabaseUnavailableError("a month was being dropped") from error
        except asyncpg.TransactionRollbackError as error:
            raise DatabaseUnavailableError(error) from error
        except (DomainError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
            raise PermanentError(f"a usage record cannot be stored: {error}") from error

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        known = {key_id: at for key_id, at in sorted(used.items()) if is_id(key_id)}
        if known:
            async with self._database.transaction() as connection:
                await connection.execute(_SQL["touch_keys"], list(known), list(known.values()))


async def _insert(connection: Connection, records: Sequence[UsageRecordedV1]) -> int:
    """Records, their combination of labels, their hour, and the news that their day is to be summed again."""
    days = sorted({day_of(record.started_at) for record in records})
    months = sorted({month_of(day) for day in days})
    # Whoever sums a day or a month waits for us, and we for them, so that no record slips between.
    locks = [*(lock_number("day", day) for day in days), *(lock_number("month", month) for month in months)]
    await connection.execute(_SQL["prepare"], LOCK_SPACE, locks, [month.date() for month in months])
    payload = json.dumps([record.model_dump(mode="json") for record in records])
    rows = await connection.fetch(_SQL["insert_usage"], payload)
    if rows:
        new = [row["started_at"] for row in rows], [row["request_id"] for row in rows]
        await connection.execute(_SQL["add_series"], *new)
        await connection.execute(_SQL["add_hourly"], *new)
        await connection.execute(_SQL["mark_periods"], days, months)
    return len(rows)
