"""The requests being served, by the ids their clients know, so that they can be ended from outside."""

import asyncio
from collections.abc import Callable
from typing import Any

from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.refusals import deadline_exceeded, deadline_invalid, request_cancelled
from cortex_gateway.metrics import INTERRUPTED
from cortex_gateway.ports import Request

DEADLINE_HEADER = b"x-request-timeout-ms"
MAX_DEADLINE_MS = 24 * 3600 * 1000


class Running:
    """One request. `interruption` says why it was ended from outside."""

    __slots__ = ("_on_interrupt", "_task", "_timer", "identity", "interruption", "namesake")

    def __init__(
        self,
        identity: tuple[str, str],
        namesake: "Running | None",
        on_interrupt: Callable[[ApiError], None] | None = None,
    ) -> None:
        self.identity = identity
        self.namesake = namesake
        """An older request of the same key and id."""
        self.interruption: ApiError | None = None
        self._on_interrupt = on_interrupt
        self._task: asyncio.Task[Any] | None = asyncio.current_task() if on_interrupt is None else None
        self._timer: asyncio.TimerHandle | None = None

    def expire_in(self, milliseconds: int) -> None:
        """End it when its deadline has passed."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(milliseconds / 1000, self.interrupt, deadline_exceeded(milliseconds), "deadline")

    def interrupt(self, error: ApiError, reason: str) -> None:
        """Cancel the request's task, or tell who handles it; `error` is what its client is told."""
        if self.interruption is not None or (self._task is None and self._on_interrupt is None):
            return
        INTERRUPTED.labels(reason).inc()
        self.interruption = error
        if self._on_interrupt is not None:
            self._on_interrupt(error)
        elif self._task is not None:
            self._task.cancel()

    def absorb(self) -> None:
        """The cancellation was understood: the task goes on to answer."""
        if self._task is not None:
            self._task.uncancel()

    def end(self) -> None:
        """From now on nothing interrupts it."""
        self._task = self._on_interrupt = None
        if self._timer is not None:
            self._timer.cancel()


class RunningRequests:
    """Requests by API key and request id. A client may use an id twice: it then means both."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Running] = {}
        """The youngest of each name."""

    def __len__(self) -> int:
        return len(self._running)

    def enter(
        self,
        key_id: str,
        request_id: str,
        deadline_ms: int | None = None,
        on_interrupt: Callable[[ApiError], None] | None = None,
    ) -> Running:
        """Register the current task, or what is called instead of cancelling one; call `leave` when it has ended."""
        identity = (key_id, request_id)
        running = self._running[identity] = Running(identity, self._running.get(identity), on_interrupt)
        if deadline_ms is not None:
            running.expire_in(deadline_ms)
        return running

    def leave(self, running: Running) -> None:
        running.end()
        identity = running.identity
        youngest = self._running[identity]
        if youngest is not running:
            while youngest.namesake is not None and youngest.namesake is not running:
                youngest = youngest.namesake
            youngest.namesake = running.namesake
        elif running.namesake is None:
            del self._running[identity]
        else:
            self._running[identity] = running.namesake

    def cancel(self, key_id: str, request_id: str) -> bool:
        """End the key's requests of that id. False when there are none here."""
        running = youngest = self._running.get((key_id, request_id))
        while running is not None:
            running.interrupt(request_cancelled(), "cancel")
            running = running.namesake
        return youngest is not None


def deadline_of(request: Request) -> int | None:
    """The client's own deadline in milliseconds, if it gave one.

    Raises:
        ApiError: 400, it is no sensible number.
    """
    given = request.header(DEADLINE_HEADER)
    if given is None:
        return None
    milliseconds = int(given) if given.isdigit() and len(given) < 12 else 0
    if not 0 < milliseconds <= MAX_DEADLINE_MS:
        raise deadline_invalid(DEADLINE_HEADER.decode(), MAX_DEADLINE_MS)
    return milliseconds
