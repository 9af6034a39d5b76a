"""Requests that are being answered: how many, how they ended, and when none is left."""

import asyncio
from collections.abc import Iterable

from cortex_gateway import metrics
from cortex_gateway.metrics import RouteMetrics


class Traffic:
    """Args: paths that have figures of their own; others share some."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._metrics = {path: RouteMetrics(path) for path in paths}
        self._other = RouteMetrics("other")
        self._in_flight = 0
        self._idle = asyncio.Event()
        self.draining = False
        """No new requests are taken."""

    def figures(self, path: str) -> RouteMetrics:
        return self._metrics.get(path, self._other)

    def enter(self) -> None:
        """A request came; `leave` when it is answered."""
        self._in_flight += 1
        metrics.IN_FLIGHT.value = float(self._in_flight)

    def leave(self, figures: RouteMetrics, status: int, seconds: float) -> None:
        """A request was answered with `status`, or its client left (499)."""
        self.pass_on()
        if status == metrics.CLIENT_CLOSED:
            figures.disconnects.inc()
        figures.requests(status).value += 1
        figures.latency.observe(seconds)

    def pass_on(self) -> None:
        """A request goes on as another one, which enters anew."""
        self._in_flight -= 1
        metrics.IN_FLIGHT.value = float(self._in_flight)
        if self.draining and self._in_flight == 0:
            self._idle.set()

    async def drained(self) -> None:
        """Take nothing new; return when nothing is in flight."""
        self.draining = True
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()
