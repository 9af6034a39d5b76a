"""Upkeep of usage in Postgres: partitions ahead, sums of days and months that are over, and what is dropped."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.usage import LOCK_SPACE
from cortex_registry.domain.usage_periods import Period, end_of, lock_number, next_month

_SQL = load_queries("usage_upkeep")
_PARTITION = re.compile(r"usage_(\d{4,})(\d{2})")
LONG_S = 300.0


class PostgresUsageUpkeep:
    """UsageUpkeepStore. One registry at a time does each step; the others find it taken and leave it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make_months(self, months: Sequence[datetime]) -> int:
        async with self._database.transaction() as connection:
            made: int = await connection.fetchval(_SQL["make_months"], [month.date() for month in months])
        return made

    async def stale(self, now: datetime) -> Sequence[Period]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["stale_periods"], now)
        return [Period(row["grain"], row["period"]) for row in rows]

    async def sum_up(self, period: Period) -> bool:
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_SQL["try_keep"], LOCK_SPACE):
                return False
            # Waits for the inserts into this period that are under way; those that come later mark it again.
            number = lock_number(period.grain, period.start)
            await connection.execute(_SQL["lock_period"], LOCK_SPACE, number, timeout=LONG_S)
            await _sum_up(connection, period)
        return True

    async def drop_records(self, before: datetime) -> Sequence[str]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["partitions"])
        dropped = [row["name"] for row in rows if await self._drop(row["name"], before)]
        return dropped

    async def _drop(self, name: str, before: datetime) -> bool:
        match = _PARTITION.fullmatch(name)
        if match is None:
            return False
        month = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        if next_month(month) > before:
            return False
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_SQL["try_keep"], LOCK_SPACE):
                return False
            # The sums must hold the records before these go; the lock keeps late ones out meanwhile.
            await connection.execute(_SQL["lock_period"], LOCK_SPACE, lock_number("month", month), timeout=LONG_S)
            if await connection.fetchval(_SQL["unsummed_month"], month):
                return False
            await connection.execute(_SQL["drop_partition"].format(name=name))
        return True

    async def drop_sums(self, before: datetime) -> None:
        async with self._database.transaction() as connection:
            if await connection.fetchval(_SQL["try_keep"], LOCK_SPACE):
                await connection.execute(_SQL["forget_rollups"], before, timeout=LONG_S)


async def _sum_up(connection: Connection, period: Period) -> None:
    day = period.grain == "day"
    table, source = ("usage_daily", "usage_hourly") if day else ("usage_monthly", "usage_daily")
    start, end = period.start, end_of(period)
    await connection.execute(_SQL["forget_sums"].format(table=table), start, timeout=LONG_S)
    for forgotten in ("usage_summaries", "usage_latencies"):
        text = _SQL["forget_summaries"].format(table=forgotten)
        await connection.execute(text, start, period.grain, timeout=LONG_S)
    await connection.execute(_SQL["sum_up"].format(table=table, source=source), start, end, timeout=LONG_S)
    await connection.execute(_SQL["summarize"].format(table=table), start, period.grain, timeout=LONG_S)
    if day:
        for query in ("forget_hours", "summarize_hours"):
            await connection.execute(_SQL[query], start, end, timeout=LONG_S)
    distribute = _SQL["distribute_day" if day else "distribute_month"]
    await connection.execute(distribute, start, end, timeout=LONG_S)
    await connection.execute(_SQL["mark_clean"], period.grain, start, timeout=LONG_S)
