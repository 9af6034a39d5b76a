"""In which order things are done when many streams send at the same moment.

Without it a loop passes on all events that it found before it looks for anything else: a new request, or the first answer
of another one, waits behind every event of the moment, and those who wait for their first token pay for all the others.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 2
"""One costs more turns of the loop per event, more let a new request wait longer (docs/benchmarks.md)."""


class Bursts:
    """Lets a few streams go on, has the loop look for what else has come, lets the next few go on, and so on, in order."""

    __slots__ = ("_left", "_loop", "_turning", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = AT_ONCE
        self._turning = False
        self._waiting: deque[Callable[[], None]] = deque()

    def may_go_on(self) -> bool:
        """Whether a stream may go on at once; else it has to ask for its turn."""
        if self._turning or not self._left:
            return False
        self._left -= 1
        return True

    def await_turn(self, go_on: Callable[[], None]) -> None:
        """Call `go_on`, which never raises, when those before it have gone on."""
        self._waiting.append(go_on)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        for _ in range(min(AT_ONCE, len(waiting))):
            waiting.popleft()()
        if waiting:
            self._loop.call_soon(self._turn)
        else:
            self._left = AT_ONCE
            self._turning = False
