"""Looks for events for a moment before it sleeps: on a virtual machine waking up takes longer than a request."""

import asyncio
from time import monotonic

from cortex_gateway import metrics

FEW = 4
"""With more requests in flight than that events come often enough by themselves."""


class BusyPoll:
    """Keeps the loop turning until `span_s` have passed since the last `extend`, which takes a processor for that time."""

    __slots__ = ("_loop", "_span_s", "_turning", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, span_s: float) -> None:
        self._loop = loop
        self._span_s = span_s
        self._until = 0.0
        self._turning = False

    def extend(self) -> None:
        """A request came or was answered; more may happen soon."""
        if metrics.IN_FLIGHT.value > FEW:
            return
        self._until = monotonic() + self._span_s
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        # A loop with something to call does not sleep.
        if monotonic() < self._until:
            self._loop.call_soon(self._turn)
        else:
            self._turning = False
