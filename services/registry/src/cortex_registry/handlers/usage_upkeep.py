"""Keeps usage in order: months made ahead, days and months summed, old ones dropped."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger
from cortex_registry.domain.usage_periods import month_of, next_month
from cortex_registry.ports import UsageUpkeepStore

log = get_logger()
MONTHS_AHEAD = 2


@dataclass(frozen=True, slots=True)
class UpkeepRules:
    """How often, and how long things are kept; None: for ever."""

    every_s: float
    records: timedelta | None
    sums: timedelta | None


class UsageUpkeep:
    """Run one per instance; each step is done by one of them."""

    def __init__(self, store: UsageUpkeepStore, clock: Clock, rules: UpkeepRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules

    async def run(self) -> None:
        """A task of the service."""
        while True:
            try:
                await self.once()
            except TransientError as error:
                log.debug("usage_upkeep_waits", reason=str(error))
            await asyncio.sleep(self._rules.every_s)

    async def once(self) -> None:
        """Do what is due. Raises TransientError when the database is away; what is done by then stays."""
        now = self._clock.now()
        made = await self._store.make_months(_months_from(now))
        summed = await self._sum_up(now)
        dropped = await self._drop(now)
        if made or summed or dropped:
            log.info("usage_upkeep", months_made=made, periods_summed=summed, months_dropped=dropped)

    async def _sum_up(self, now: datetime) -> int:
        """Days first: a month is summed of its days."""
        summed = 0
        while periods := await self._store.stale(now):
            for period in periods:
                if not await self._store.sum_up(period):
                    return summed  # another registry is at it
                summed += 1
        return summed

    async def _drop(self, now: datetime) -> int:
        dropped = 0
        if self._rules.records is not None:
            dropped = len(await self._store.drop_records(month_of(now - self._rules.records)))
        if self._rules.sums is not None:
            await self._store.drop_sums(month_of(now - self._rules.sums))
        return dropped


def _months_from(now: datetime) -> list[datetime]:
    months = [month_of(now)]
    for _ in range(MONTHS_AHEAD):
        months.append(next_month(months[-1]))
    return months
