"""Waiting for a model to have a replica within reach: one that is about to come, or one that a request wakes up."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortex_contracts.enums import Lifecycle
from cortex_gateway.attempts import Call
from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.routing import Route, Unavailability
from cortex_gateway.metrics import WAITING
from cortex_gateway.ports import Hints
from cortex_gateway.projection import Projection

_NOT_WAKING = frozenset({"unhealthy", "unreachable", "stopped"})
_LOST = Unavailability("unreachable", "no replica accepts connections", wait=True, retry_after_s=2)


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How long, and how many. `demand_*` holds for models that sleep until a request comes: those take minutes."""

    wait_s: float = 5.0
    max_waiters: int = 1024
    demand_wait_s: float = 600.0
    max_demand_waiters: int = 256
    ping_s: float = 5.0


class WaitingRoom:
    """Holds requests until the routing table changes; wakes models on demand."""

    def __init__(self, projection: Projection, hints: Hints, policy: WaitPolicy) -> None:
        self._projection = projection
        self._hints = hints
        self._policy = policy
        self._waiting = 0
        self._demanding = 0

    async def wait(self, route: Route, call: Call, ready_at: Sequence[float], now: float) -> None:
        """Return when there may be a replica to try: the table changed, or one of the moments has come.

        Raises:
            ApiError: 503 with the reason, when waiting is pointless, too long, or too many wait already.
        """
        why = _LOST if route.targets else route.unavailability
        waking = self.demand(route) and why.state not in _NOT_WAKING
        if call.wait_began is None:
            call.wait_began = call.pinged = now
        give_up_at = call.wait_began + (self._policy.demand_wait_s if waking else self._policy.wait_s)
        if not why.wait or why.final or now >= give_up_at or not self._has_room(waking):
            raise self.unavailable(route, call)
        wakes = [give_up_at, *ready_at]
        if waking:
            await self._ping(call, now)
            wakes.append(now + self._policy.ping_s)
        await self._hold(min(wakes) - now, waking=waking)

    def unavailable(self, route: Route, call: Call) -> ApiError:
        """Why the model cannot serve now: in the engine's own words if it has answered."""
        if call.refusal is not None and route.targets:
            return call.refusal
        why = _LOST if route.targets else route.unavailability
        return errors.model_unavailable(call.model, why.state, why.reason, why.retry_after_s)

    def demand(self, route: Route) -> bool:
        """Ask for a model that sleeps, goes to sleep or has given up; True when it may wake, by this or by itself."""
        why = route.unavailability
        if route.targets or route.model.lifecycle is not Lifecycle.ON_DEMAND or not why.wait:
            return False
        if why.asleep or why.final or why.state == "stopping":
            self._hints.demand(route)
        return True

    def _has_room(self, waking: bool) -> bool:
        if waking:
            return self._demanding < self._policy.max_demand_waiters
        return self._waiting < self._policy.max_waiters

    async def _ping(self, call: Call, now: float) -> None:
        if call.ping is not None and now - call.pinged >= self._policy.ping_s:
            call.pinged = now
            await call.ping()

    async def _hold(self, seconds: float, *, waking: bool) -> None:
        self._waiting += not waking
        self._demanding += waking
        WAITING.set(self._waiting + self._demanding)
        try:
            await self._projection.wait_change(max(0.001, seconds))
        finally:
            self._waiting -= not waking
            self._demanding -= waking
            WAITING.set(self._waiting + self._demanding)
