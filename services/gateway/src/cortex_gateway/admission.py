"""Waiting for a slot of a busy model. A request that waits costs a future; nobody polls."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cortex_gateway.domain.admission import ServiceTime, Ticket, WaitLine
from cortex_gateway.domain.refusals import displaced, queue_full, queue_timeout
from cortex_gateway.metrics import QUEUE_REFUSALS, QUEUE_TIME, QUEUED

RECHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Bounds of a model's line. `batch_handicap_s`: how much later a batch request ranks than it came."""

    max_queue: int = 1000
    wait_s: float = 120.0
    batch_wait_s: float = 600.0
    batch_handicap_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks to be let in: a key, its class, and when the request came."""

    key_id: str
    batch: bool
    since: float


class Gate:
    """Lets as many requests of a model through as there is room; the others wait in line."""

    def __init__(self, model: str, policy: GatePolicy, now: Callable[[], float]) -> None:
        self.model = model
        self.recheck: Callable[[], None] | None = None
        """Called now and then while somebody waits: the room may grow by itself as reports of others' load grow old."""
        self._timer: asyncio.TimerHandle | None = None
        self._policy = policy
        self._now = now
        self._room = 1
        self._active = 0
        self._line = WaitLine()
        self._calls: dict[Ticket, asyncio.Future[None]] = {}
        self._service = ServiceTime()
        self._gauge = QUEUED.labels(model)
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def active(self) -> int:
        return self._active

    @property
    def retry_after_s(self) -> int:
        """When a request refused now would probably be served."""
        return self._service.wait_s(len(self._line), self._room)

    def try_enter(self) -> bool:
        """Take a place if there is one and nobody waits for it."""
        if self._active < self._room and not self._calls:
            self._active += 1
            return True
        return False

    async def enter(self, visitor: Visitor) -> None:
        """Take a place, waiting for it in line. Every `enter` and successful `try_enter` is followed by one `leave`.

        Raises:
            ApiError: 429, the line is full, the wait was too long, or somebody of higher priority took the place in it.
        """
        if self.try_enter():
            return
        kind = "batch" if visitor.batch else "interactive"
        ticket = self._join(visitor)
        began = self._now()
        wait_s = self._policy.batch_wait_s if visitor.batch else self._policy.wait_s
        call = self._calls[ticket] = asyncio.get_running_loop().create_future()
        self._gauge.set(len(self._line))
        self._recheck_later()
        try:
            async with asyncio.timeout(wait_s):
                await call
        except TimeoutError:
            if not _was_let_in(call):
                QUEUE_REFUSALS.labels("timeout").inc()
                raise queue_timeout(self.model, self._now() - began, self.retry_after_s) from None
        except asyncio.CancelledError:
            if _was_let_in(call):
                self._give_back()
            raise
        finally:
            self._calls.pop(ticket, None)
            self._line.leave(ticket)
            self._gauge.set(len(self._line))
        QUEUE_TIME.labels(kind).observe(self._now() - began)

    def leave(self, held_s: float) -> None:
        """A place is free again; `held_s` is how long it was taken."""
        self._service.note(held_s)
        self._give_back()

    def abandon(self) -> None:
        """A place was taken and not used."""
        self._give_back()

    def set_room(self, room: int) -> None:
        """There is room for so many from now on. Those inside stay."""
        self._room = room
        if self._calls:
            self._call_next()

    def close(self) -> None:
        """The model is gone: those who wait go on and find out."""
        self._closed = True
        self._call_next()

    def _join(self, visitor: Visitor) -> Ticket:
        moment = visitor.since + (self._policy.batch_handicap_s if visitor.batch else 0.0)
        pace = self._service.pace(self._room)
        if len(self._line) >= self._policy.max_queue:
            last = self._line.last()
            if last is None or self._line.rank(visitor.key_id, moment, pace) >= last.rank:
                QUEUE_REFUSALS.labels("full").inc()
                raise queue_full(self.model, self.retry_after_s)
            QUEUE_REFUSALS.labels("displaced").inc()
            self._line.leave(last)
            call = self._calls.pop(last, None)
            if call is not None and not call.done():
                call.set_exception(displaced(self.model, self.retry_after_s))
        return self._line.join(visitor.key_id, moment, pace)

    def _recheck_later(self) -> None:
        if self._timer is None and self.recheck is not None:
            self._timer = asyncio.get_running_loop().call_later(RECHECK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._calls and self.recheck is not None:
            self.recheck()
            self._recheck_later()

    def _give_back(self) -> None:
        self._active -= 1
        if self._calls:
            self._call_next()

    def _call_next(self) -> None:
        while (self._active < self._room or self._closed) and (ticket := self._line.first()) is not None:
            self._line.leave(ticket)
            call = self._calls.pop(ticket)
            if not call.done():
                self._active += 1
                call.set_result(None)


def _was_let_in(call: "asyncio.Future[None]") -> bool:
    return call.done() and not call.cancelled() and call.exception() is None
