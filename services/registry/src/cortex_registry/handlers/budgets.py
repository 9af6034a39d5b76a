"""Budgets survive the loss of NATS: its counters are raised to what the usage records say."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from cortex_contracts.base import KeyId
from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.lease import Lease
from cortex_kit.logging import get_logger

log = get_logger()

EVERY_S = 60.0
LOOK_EVERY_S = 2.0


class Spending(Protocol):
    """What the usage records say."""

    async def since(self, start: datetime) -> Mapping[KeyId, int]:
        """Tokens of each key that has a budget. Raises TransientError."""
        ...


class BudgetCounters(Protocol):
    """What the gateways count by."""

    async def value(self, key: KeyId, month: str) -> int:
        """Raises TransientError."""
        ...

    async def add(self, key: KeyId, month: str, amount: int) -> None:
        """Raises TransientError: it may have been added."""
        ...


class BudgetKeeper:
    """Raises counters that lag behind the records, at intervals and at once when the streams were made anew.

    A counter is normally ahead of the records: it holds what is reserved, and they arrive later. It is behind only when
    it was lost. One registry at a time does this.
    """

    def __init__(
        self, spending: Spending, counters: BudgetCounters, lease: Lease, clock: Clock, generation: Callable[[], int]
    ) -> None:
        self._spending = spending
        self._counters = counters
        self._lease = lease
        self._clock = clock
        self._generation = generation

    async def run(self) -> None:
        """A task of the service."""
        done_at, done_for = -EVERY_S, 0
        while True:
            await self._lease.wait_held()
            generation, now = self._generation(), self._clock.monotonic()
            if generation and (generation != done_for or now - done_at >= EVERY_S):
                try:
                    raised = await self.raise_all()
                except TransientError as error:
                    log.debug("budgets_not_looked_at", reason=str(error))
                else:
                    done_at, done_for = now, generation
                    if raised:
                        log.warning("budgets_raised", keys=raised)
            await asyncio.sleep(LOOK_EVERY_S)

    async def raise_all(self) -> int:
        """Returns how many counters were behind. Raises TransientError."""
        now = self._clock.now()
        start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        month, raised = start.strftime("%Y%m"), 0
        for key, tokens in (await self._spending.since(start)).items():
            missing = tokens - await self._counters.value(key, month)
            if missing > 0:
                await self._counters.add(key, month, missing)
                raised += 1
        return raised
