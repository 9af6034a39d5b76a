"""Usage records in Postgres."""

import json
from collections.abc import Sequence

import asyncpg

from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import DomainError, PermanentError
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import usage_from_row
from cortex_registry.domain.usage import UsageFilter, UsageReport, UsageTotals

_SQL = load_queries("usage")


class PostgresUsage:
    """UsageRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, records: Sequence[UsageRecordedV1]) -> int:
        payload = json.dumps([record.model_dump(mode="json") for record in records])
        try:
            async with self._database.transaction() as connection:
                status = await connection.execute(_SQL["insert_usage"], payload)
        except (DomainError, asyncpg.IntegrityConstraintViolationError) as error:
            raise PermanentError(f"a usage record cannot be stored: {error}") from error
        return int(status.rsplit(" ", 1)[-1])

    async def report(self, wanted: UsageFilter) -> UsageReport:
        filters = (wanted.model, wanted.key_id, wanted.since)
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_usage"], *filters, wanted.limit)
            row = await connection.fetchrow(_SQL["total_usage"], *filters)
        totals = UsageTotals(**dict(row)) if row is not None else UsageTotals(0, 0, 0, 0, 0)
        return UsageReport([usage_from_row(record) for record in rows], totals)
