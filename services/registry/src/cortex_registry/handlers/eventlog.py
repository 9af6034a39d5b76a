"""The event log: events off the stream are gathered for a moment, stored together, acknowledged after the commit."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.eventlog import EventFilter, EventPage, NewEvent, new_event, without_overtaken
from cortex_registry.handlers.eventlog_ports import EventLog

log = get_logger()
PRUNE_EVERY_S = 600.0
PRUNE_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: NewEvent
    position: int
    done: "asyncio.Future[None]"


class EventBatcher:
    """Joins events that arrive together into one insert. `run` must be running for `add` to return."""

    def __init__(self, events: EventLog, *, batch_size: int, wait_s: float) -> None:
        self._events = events
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def add(self, raw: bytes, position: int) -> None:
        """Return once the event is committed, now or before. `position` is its place in the stream: a batch keeps it.

        Raises:
            TransientError: the database is away; nothing was stored.
            PermanentError: this can never be a row.
            pydantic.ValidationError: not an event.
        """
        done = asyncio.get_running_loop().create_future()
        await self._queue.put(_Waiting(new_event(raw), position, done))
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
        # Messages of one fetch are handled side by side, so that they come here in any order.
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while len(batch) < self._batch_size:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return sorted(batch, key=lambda one: one.position)

    async def _store(self, batch: Sequence[_Waiting]) -> None:
        try:
            stored = await self._events.append(without_overtaken([one.event for one in batch]))
        except TransientError as error:
            _settle(batch, error)
            return
        except PermanentError as error:
            if len(batch) == 1:
                _settle(batch, error)
                return
            # One event that can never be stored must not keep the others out.
            for one in batch:
                await self._store([one])
            return
        metrics.EVENTS_LOGGED.inc(stored)
        _settle(batch, None)


def _settle(batch: Sequence[_Waiting], error: Exception | None) -> None:
    """Answer those still waiting; one whose message was cancelled waits no more."""
    for one in batch:
        if one.done.done():
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)


class EventHistory:
    """Queries on the log."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    async def page(self, wanted: EventFilter, *, after: int | None, newest_first: bool, limit: int) -> EventPage:
        """One page in either direction; `after` is the cursor of the page before."""
        return await self._events.page(wanted, after=after, newest_first=newest_first, limit=limit)


class EventPruner:
    """Keeps the log within its age and its number of rows."""

    def __init__(self, events: EventLog, *, max_age_s: float, max_rows: int, every_s: float = PRUNE_EVERY_S) -> None:
        self._events = events
        self._max_age_s = max_age_s
        self._max_rows = max_rows
        self._every_s = every_s

    async def run(self) -> None:
        """A task of the service."""
        while True:
            # Several registries need not look at the same moment.
            await asyncio.sleep(self._every_s * random.uniform(0.05, 1.0))
            try:
                await self.prune()
            except TransientError as error:
                log.info("events_not_pruned", reason=str(error))

    async def prune(self) -> int:
        """Delete what is too old or too much, a chunk a transaction; returns how many rows went."""
        through = await self._events.outdated(max_age_s=self._max_age_s, max_rows=self._max_rows)
        deleted = 0
        while through:
            gone = await self._events.prune(through, PRUNE_CHUNK)
            deleted += gone
            if gone < PRUNE_CHUNK:
                break
        if deleted:
            log.info("events_pruned", rows=deleted, through=through)
        return deleted
