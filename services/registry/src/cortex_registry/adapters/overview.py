"""Throughput of the last minutes, from usage records."""

from collections.abc import Sequence
from datetime import datetime

from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.handlers.overview import ModelThroughput

_SQL = load_queries("overview")


class PostgresThroughputs:
    """Throughputs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, start: datetime, limit: int) -> Sequence[ModelThroughput]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["throughput"], start, limit)
        return [ModelThroughput(**dict(row)) for row in rows]
