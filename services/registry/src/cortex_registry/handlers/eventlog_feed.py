"""The live end of the event log: one connection hears of new rows and keeps the last ones for all clients.

A client reads what it missed from the database, then follows the kept rows. Nothing is kept per client but its cursor, so
a slow one costs nothing; one that falls behind the kept rows is ended and resumes at its cursor.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.eventlog import EventFilter, LoggedEvent
from cortex_registry.errors import DatabaseUnavailableError, UnavailableError
from cortex_registry.handlers.eventlog_ports import EventLog, EventSession, EventSource

log = get_logger()
POLL_S = 2.0
RETRY_S = 0.5
BATCH = 500
OVERRUN = "overrun"
GAP = "gap"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell a client that is no event; `last` ends the stream."""

    name: str
    message: str
    last: bool = False


class EventFeed:
    """Follows the log. `run` is a task of the service."""

    def __init__(self, source: EventSource, *, keep: int) -> None:
        self._source = source
        self._keep = keep
        self._rows: deque[LoggedEvent] = deque()
        self._floor: int | None = None
        self._latest = 0
        self._news = asyncio.Event()

    @property
    def latest(self) -> int | None:
        """The newest sequence read; None before the database was reached for the first time."""
        return self._latest if self._floor is not None else None

    @property
    def floor(self) -> int | None:
        """Every row above it is kept here."""
        return self._floor

    async def run(self) -> None:
        """Follow until cancelled, with or without Postgres."""
        while True:
            try:
                async with self._source.open() as session:
                    await self._follow(session)
            except DatabaseUnavailableError as error:
                log.info("event_feed_waits", reason=error.message)
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))

    async def _follow(self, session: EventSession) -> None:
        head = await session.head()
        if self._floor is None or head < self._latest:  # the first time, or the database is an older one
            self._rows.clear()
            self._latest = self._floor = head
        while True:
            rows = await session.after(self._latest, BATCH)
            if rows:
                self._take(rows)
            if len(rows) < BATCH:
                await session.wait(POLL_S)

    def _take(self, rows: Sequence[LoggedEvent]) -> None:
        self._rows.extend(rows)
        self._latest = rows[-1].sequence
        while len(self._rows) > self._keep:
            self._floor = self._rows.popleft().sequence
        news, self._news = self._news, asyncio.Event()
        news.set()

    def after(self, cursor: int) -> Sequence[LoggedEvent]:
        """The kept rows above the cursor, which must not lie below `floor`."""
        found: list[LoggedEvent] = []
        for row in reversed(self._rows):
            if row.sequence <= cursor:
                break
            found.append(row)
        found.reverse()
        return found

    async def wait(self, cursor: int) -> int:
        """Return when there are rows above the cursor: every row above the number returned is kept here."""
        while self._floor is None or self._latest <= cursor:
            await self._news.wait()
        return self._floor


class LiveEvents:
    """What clients of the live stream see."""

    def __init__(self, events: EventLog, feed: EventFeed, *, max_clients: int) -> None:
        self._events = events
        self._feed = feed
        self._max_clients = max_clients
        self._clients = 0
        self._closing = asyncio.Event()

    @property
    def closing(self) -> asyncio.Event:
        """Set once the service stops: streams end."""
        return self._closing

    async def close(self) -> None:
        """End every stream."""
        self._closing.set()

    async def start(self, after: int | None) -> int:
        """The cursor to begin at: the given one, or the newest event.

        Raises:
            DomainError: 422 `unknown_cursor`: the log has never come that far.
            UnavailableError: too many clients, or Postgres is away.
        """
        if self._closing.is_set() or self._clients >= self._max_clients:
            raise UnavailableError("too_many_streams", "Too many clients follow events already. Try again later.")
        page = await self._events.page(EventFilter(), after=None, newest_first=True, limit=1)
        if after is None:
            return page.head
        if after > page.head:
            message = f"The log has come to {page.head} only: {after} is a cursor of another installation."
            raise DomainError("unknown_cursor", message, status=422, details={"head": page.head})
        return after

    async def follow(self, wanted: EventFilter, cursor: int) -> AsyncGenerator[LoggedEvent | Notice]:
        """Every event above the cursor that the filter wants, in order, each once; ends with a last notice."""
        self._clients += 1
        metrics.EVENT_STREAMS.set(self._clients)
        try:
            async for item in self._follow(wanted, cursor):
                yield item
        finally:
            self._clients -= 1
            metrics.EVENT_STREAMS.set(self._clients)

    async def _follow(self, wanted: EventFilter, cursor: int) -> AsyncGenerator[LoggedEvent | Notice]:
        first = True
        while (floor := self._feed.floor) is None or cursor < floor or first:
            rows, through, pruned = await self._stored(wanted, cursor)
            if first and pruned > cursor:
                yield Notice(GAP, f"Events up to {pruned} have left the log.")
            first = False
            for row in rows:
                yield row
            cursor = max(cursor, through)
            if not rows and (floor is None or cursor < floor):
                await asyncio.sleep(0.05)  # the feed is ahead of what this read saw, or has not begun
        while True:
            floor = await self._feed.wait(cursor)
            if cursor < floor:
                yield Notice(OVERRUN, "This client was too slow. Resume at the last id.", last=True)
                return
            for row in self._feed.after(cursor):
                cursor = row.sequence
                if wanted.wants(row):
                    yield row

    async def _stored(self, wanted: EventFilter, cursor: int) -> tuple[Sequence[LoggedEvent], int, int]:
        """A page from the database, up to where it reaches, and what has left the log; waits while Postgres is away."""
        while True:
            try:
                page = await self._events.page(wanted, after=cursor, newest_first=False, limit=BATCH)
            except TransientError:
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))
                continue
            if len(page.events) < BATCH:
                last = page.events[-1].sequence if page.events else cursor
                return page.events, max(last, page.head), page.pruned
            return page.events, page.events[-1].sequence, page.pruned
