"""The requests being served, by the ids their clients know, so that they can be ended from outside."""

import asyncio
from typing import Any

from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.refusals import deadline_exceeded, deadline_invalid, request_cancelled
from cortex_gateway.metrics import INTERRUPTED
from cortex_gateway.ports import Request

DEADLINE_HEADER = b"x-request-timeout-ms"
MAX_DEADLINE_MS = 24 * 3600 * 1000


class Running:
    """One request. `interruption` says why it was ended from outside."""

    __slots__ = ("_task", "_timer", "identity", "interruption")

    def __init__(self, identity: tuple[str, str]) -> None:
        self.identity = identity
        self.interruption: ApiError | None = None
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None

    def expire_in(self, milliseconds: int) -> None:
        """End it when its deadline has passed."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(milliseconds / 1000, self.interrupt, deadline_exceeded(milliseconds), "deadline")

    def interrupt(self, error: ApiError, reason: str) -> None:
        """Cancel the request's task; `error` is what its client is told."""
        if self.interruption is None and self._task is not None:
            INTERRUPTED.labels(reason).inc()
            self.interruption = error
            self._task.cancel()

    def absorb(self) -> None:
        """The cancellation was understood: the task goes on to answer."""
        if self._task is not None:
            self._task.uncancel()

    def end(self) -> None:
        """From now on nothing interrupts it."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()


class RunningRequests:
    """Requests by API key and request id. A client may use an id twice: it then means both."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], list[Running]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def enter(self, key_id: str, request_id: str, deadline_ms: int | None = None) -> Running:
        """Register the current task; call `leave` in a `finally`."""
        running = Running((key_id, request_id))
        known = self._running.get(running.identity)
        if known is None:
            self._running[running.identity] = [running]
        else:
            known.append(running)
        if deadline_ms is not None:
            running.expire_in(deadline_ms)
        return running

    def leave(self, running: Running) -> None:
        running.end()
        known = self._running[running.identity]
        if len(known) == 1:
            del self._running[running.identity]
        else:
            known.remove(running)

    def cancel(self, key_id: str, request_id: str) -> bool:
        """End the key's requests of that id. False when there are none here."""
        known = self._running.get((key_id, request_id), ())
        for running in tuple(known):
            running.interrupt(request_cancelled(), "cancel")
        return bool(known)


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
