"""Waiting until nobody needs a replica any more, as far as that can be known."""

import asyncio
from dataclasses import dataclass

from cortex_kit.clock import Clock
from cortex_orchestrator.domain.observed import Observed
from cortex_orchestrator.handlers.health import verdict_on
from cortex_orchestrator.handlers.world import VerdictsView

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """`pause_s` lets gateways hear that the replica drains; `blind_s` is how long to wait for word of how busy it is."""

    pause_s: float = 0.5
    blind_s: float = 3.0


class Drain:
    """Asks health, which reads a draining engine's own count of requests several times a second."""

    def __init__(self, verdicts: VerdictsView, clock: Clock, settings: DrainSettings) -> None:
        self._verdicts = verdicts
        self._clock = clock
        self._settings = settings

    async def pause(self, budget_s: float) -> None:
        """Time for gateways to look elsewhere."""
        await asyncio.sleep(min(self._settings.pause_s, budget_s))

    async def wait(self, seen: Observed, budget_s: float) -> str:
        """Wait until the replica has no requests, at most `budget_s`; returns how that ended, for the log."""
        began = self._clock.monotonic()
        await self.pause(budget_s)
        version = self._version(seen)
        heard = self._clock.monotonic()
        while (now := self._clock.monotonic()) - began < budget_s:
            verdict = verdict_on(self._verdicts, seen)
            if verdict is not None and verdict.load.sampled_at is not None and verdict.aggregateversion > version:
                if not verdict.load.running and not verdict.load.waiting:
                    return "no request is in flight"
                version, heard = verdict.aggregateversion, now
            if now - heard > self._settings.blind_s:
                return "it is not known whether requests are in flight"
            await asyncio.sleep(POLL_S)
        return "requests are still in flight"

    def _version(self, seen: Observed) -> int:
        verdict = verdict_on(self._verdicts, seen)
        return verdict.aggregateversion if verdict is not None else 0
