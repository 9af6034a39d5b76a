"""Usage records: gathered for a moment, inserted together, acknowledged after the commit."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_contracts.events import UsageRecordedV1
from cortex_kit.clock import Clock
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.usage import check_date
from cortex_registry.ports import UsageRepository

log = get_logger()
TOUCH_S = 60.0
MAX_TOUCHED = 10_000
_Waiting = tuple[UsageRecordedV1, "asyncio.Future[None]"]


@dataclass(frozen=True, slots=True)
class BatchRules:
    """How much is inserted together, how long a record waits for others, how old one may be (None: very)."""

    size: int
    wait_s: float
    retention: timedelta | None = None


class UsageBatcher:
    """Joins records that arrive together into one insert. `run` must be running for `add` to return."""

    def __init__(self, repository: UsageRepository, rules: BatchRules, clock: Clock) -> None:
        self._repository = repository
        self._rules = rules
        self._clock = clock
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._touched = KeysInUse()

    async def add(self, record: UsageRecordedV1) -> None:
        """Return once the record is committed, now or before.

        Raises:
            TransientError: the database is away; nothing was stored.
            PermanentError: the database can never hold this record, or its date is absurd.
        """
        check_date(record, self._clock.now(), self._rules.retention)
        done = asyncio.get_running_loop().create_future()
        await self._queue.put((record, done))
        await done

    async def run(self) -> None:
        """A task of the service."""
        while True:
            batch = await self._next_batch()
            try:
                await self._store(batch)
            finally:
                _settle(batch, TransientError("the registry is stopping"))

    async def _next_batch(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._rules.wait_s
        while len(batch) < self._rules.size:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _store(self, batch: Sequence[_Waiting]) -> None:
        try:
            inserted = await self._repository.insert([record for record, _ in batch])
        except TransientError as error:
            _settle(batch, error)
            return
        except PermanentError as error:
            if len(batch) == 1:
                _settle(batch, error)
                return
            # One record that can never be stored must not keep the others out.
            for one in batch:
                await self._store([one])
            return
        metrics.USAGE_INSERTED.inc(inserted)
        metrics.USAGE_REPEATED.inc(len(batch) - inserted)
        log.debug("usage_stored", received=len(batch), inserted=inserted)
        _settle(batch, None)
        await self._touch([record for record, _ in batch])

    async def _touch(self, records: Sequence[UsageRecordedV1]) -> None:
        due = self._touched.due(records, self._clock.monotonic())
        if not due:
            return
        try:
            await self._repository.touch_keys(due)
        except TransientError as error:
            log.debug("keys_not_touched", reason=str(error))  # the records are stored; the next ones say it again


class KeysInUse:
    """Which keys' last use is to be written: each at most once a minute."""

    def __init__(self) -> None:
        self._written: dict[str, float] = {}

    def due(self, records: Sequence[UsageRecordedV1], now: float) -> dict[str, datetime]:
        """The last use of each key that was not written for a minute; counts as written from now on."""
        used: dict[str, datetime] = {}
        for record in records:
            if now - self._written.get(record.key_id, -TOUCH_S) >= TOUCH_S:
                used[record.key_id] = max(record.started_at, used.get(record.key_id, record.started_at))
        if len(self._written) + len(used) > MAX_TOUCHED:
            self._written.clear()
        self._written.update(dict.fromkeys(used, now))
        return used


def _settle(batch: Sequence[_Waiting], error: Exception | None) -> None:
    """Answer those still waiting; one whose message was cancelled waits no more."""
    for _, done in batch:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
