"""A deadline that is moved often and rarely fires: moving it costs one assignment, not a timer."""

import asyncio
from collections.abc import Callable

_NEVER = float("inf")


class LazyTimer:
    """Calls back once the armed time has passed without being re-armed or disarmed.

    The underlying loop timer is left alone when the deadline moves later, and re-set only when it fires early.
    """

    __slots__ = ("_callback", "_deadline", "_handle", "_loop", "_wakes_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._deadline = _NEVER
        self._wakes_at = _NEVER
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, seconds: float) -> None:
        """Fire after `seconds` from now unless moved."""
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._wakes_at:
            self._schedule()

    def disarm(self) -> None:
        """Do not fire until armed again."""
        self._deadline = _NEVER

    def cancel(self) -> None:
        """Never fire again; drop the loop's timer."""
        self._deadline = self._wakes_at = _NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._wakes_at = self._deadline
        self._handle = self._loop.call_at(self._deadline, self._wake)

    def _wake(self) -> None:
        self._handle = None
        self._wakes_at = _NEVER
        if self._deadline == _NEVER:
            return
        if self._loop.time() < self._deadline:
            self._schedule()
            return
        self._deadline = _NEVER
        self._callback()
