"""Finding a replica and getting an answer to begin: choice, breakers, retries before the first byte, waiting."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cortex_contracts.base import ModelId
from cortex_contracts.enums import Lifecycle
from cortex_gateway import metrics
from cortex_gateway.domain import errors
from cortex_gateway.domain.balancing import (
    CLOSED,
    Breaker,
    BreakerPolicy,
    RetryBudget,
    allows,
    next_chance,
    on_attempt,
    on_failure,
)
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling import map_engine_error
from cortex_gateway.domain.routing import Route, RoutingTable, Target, Unavailability, order_by_policy
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import Failure, Hints, UpstreamClient, UpstreamError, UpstreamRequest, UpstreamResponse
from cortex_gateway.projection import Projection
from cortex_kit.logging import get_logger

log = get_logger()

MAX_ERROR_BYTES = 1024 * 1024
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0
EVENT_STREAM = b"text/event-stream"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request's search for an answer."""

    wait_s: float
    max_waiters: int
    max_attempts: int
    breaker: BreakerPolicy


@dataclass(slots=True)
class Call:
    """A request to forward. `prepare` makes the engine's form of it, which may differ per route and replica."""

    model: str
    stream: bool
    request_id: str
    metrics: RouteMetrics
    prepare: Callable[[Route, Target], UpstreamRequest]
    route: Route | None = None
    target: Target | None = None
    sent: UpstreamRequest | None = None
    attempts: int = 0
    backoff_s: float = FIRST_BACKOFF_S
    give_up_at: float | None = None
    refusal: ApiError | None = None
    """What an engine that was loading said last."""
    not_before: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Answer:
    """A success that has begun; `first` are its first bytes. Close it in a `finally`."""

    target: Target
    response: UpstreamResponse
    first: bytes
    is_stream: bool
    release: Callable[[str], None]

    def close(self) -> None:
        self.response.close()
        self.release(self.target.incarnation)


class Dispatcher:
    """Owns what is known of each replica beyond the table: requests in flight and its breaker."""

    def __init__(self, projection: Projection, client: UpstreamClient, hints: Hints, limits: Limits) -> None:
        self._projection = projection
        self._client = client
        self._hints = hints
        self._limits = limits
        self._budget = RetryBudget()
        self._in_flight: dict[str, int] = {}
        self._breakers: dict[str, Breaker] = {}
        self._turns: dict[ModelId, int] = {}
        self._waiting = 0
        self._now = asyncio.get_running_loop().time

    def on_swap(self, table: RoutingTable) -> None:
        """Forget replicas that are gone."""
        live = {target.incarnation for route in table.routes for target in route.targets}
        metrics.ROUTES.set(len(live))
        for incarnation in self._breakers.keys() - live:
            del self._breakers[incarnation]

    async def open(self, call: Call) -> Answer:
        """Get an answer to begin, on whichever replica can.

        Raises:
            ApiError: no replica in time, or the engine's own refusal.
        """
        self._budget.deposit()
        while True:
            route = self._projection.table.find(call.model)
            if route is None:
                raise errors.model_not_found(call.model)
            call.route = route
            target = self._choose(route, call)
            if target is None:
                await self._wait(route, call)
                continue
            answer = await self._attempt(route, target, call)
            if answer is not None:
                return answer

    def _choose(self, route: Route, call: Call) -> Target | None:
        """The replica to try now, or None when all are out of reach for the moment."""
        targets = route.targets
        if self._breakers or call.not_before:
            now = self._now()
            targets = tuple(target for target in targets if self._ready_at(target, call, now) <= now)
        if not targets:
            return None
        turn = self._turns.get(route.model.id, 0)
        self._turns[route.model.id] = turn + 1
        in_flight = tuple(self._in_flight.get(target.incarnation, 0) for target in targets)
        return targets[order_by_policy(route.model.routing_policy, in_flight, turn)]

    def _ready_at(self, target: Target, call: Call, now: float) -> float:
        breaker = self._breakers.get(target.incarnation, CLOSED)
        ready = now if allows(breaker, now) else next_chance(breaker, now)
        return max(ready, call.not_before.get(target.incarnation, 0.0))

    async def _attempt(self, route: Route, target: Target, call: Call) -> Answer | None:
        """Send once. None: it failed in a way that may be tried again, and is noted."""
        request = call.prepare(route, target)
        call.target, call.sent = target, request
        incarnation = target.incarnation
        if incarnation in self._breakers:
            self._breakers[incarnation] = on_attempt(self._breakers[incarnation], self._now(), self._limits.breaker)
        self._in_flight[incarnation] = self._in_flight.get(incarnation, 0) + 1
        call.metrics.selected(target.engine_type).inc()
        answer: Answer | None = None
        try:
            answer = await self._exchange(target, request, call)
        except UpstreamError as error:
            self._on_failure(route, target, call, error)
        finally:
            if answer is None:
                self._release(incarnation)
        return answer

    async def _exchange(self, target: Target, request: UpstreamRequest, call: Call) -> Answer | None:
        began = self._now()
        response = await self._client.post(target.endpoint, request)
        call.metrics.upstream(target.engine_type).observe(self._now() - began)
        kept = False
        try:
            self._breakers.pop(target.incarnation, None)
            if response.status >= 400:
                await self._refuse(response, call, target)
                return None
            if response.status != 200:
                raise errors.engine_answer_unusable(f"status {response.status}")
            is_stream = call.stream and (response.header(b"content-type") or b"").startswith(EVENT_STREAM)
            first = await response.read() if is_stream else b""
            kept = True
            return Answer(target, response, first, is_stream, self._release)
        finally:
            if not kept:
                response.close()

    async def _refuse(self, response: UpstreamResponse, call: Call, target: Target) -> None:
        """Raise the engine's refusal, unless it is still loading: that costs it nothing, and the waiting time bounds it."""
        refusal = map_engine_error(response.status, await response.read_all(MAX_ERROR_BYTES))
        if not refusal.loading:
            raise refusal.error
        metrics.RETRIES.labels("loading").inc()
        call.refusal = refusal.error
        self._back_off(call, target)

    def _on_failure(self, route: Route, target: Target, call: Call, error: UpstreamError) -> None:
        """Account for a failure before the first byte; raises when it must not be tried again."""
        log.warning(
            "upstream_failed",
            replica_id=target.replica_id,
            failure=error.failure.value,
            detail=str(error),
            request_id=call.request_id,
        )
        if error.failure is Failure.TIMEOUT:
            seconds = call.sent.first_byte_timeout_s if call.sent is not None else 0.0
            raise errors.engine_timeout(seconds) from error
        self._trip(target)
        self._hints.suspect(target.replica_id, route.model.id, str(error))
        lost = errors.engine_lost()
        if error.failure is Failure.CONNECT:
            # Nothing was sent: bounded by the breaker and the waiting time alone.
            self._back_off(call, target)
        elif error.failure is Failure.NO_ANSWER:
            self._note_retry(call, target, error.failure.value, lost)
        else:
            raise lost from error

    def _trip(self, target: Target) -> None:
        before = self._breakers.get(target.incarnation, CLOSED)
        after = on_failure(before, self._now(), self._limits.breaker)
        self._breakers[target.incarnation] = after
        if after.open_until is not None and before.open_until is None:
            metrics.BREAKER_OPENS.labels(target.engine_type).inc()
            log.warning("breaker_opened", replica_id=target.replica_id, failures=after.consecutive)

    def _note_retry(self, call: Call, target: Target, reason: str, error: ApiError) -> None:
        """Count an attempt that reached the engine; raises `error` when attempts or budget are spent."""
        call.attempts += 1
        if call.attempts >= self._limits.max_attempts or not self._budget.withdraw():
            raise error
        metrics.RETRIES.labels(reason).inc()
        self._back_off(call, target)

    def _back_off(self, call: Call, target: Target) -> None:
        now = self._now()
        call.not_before[target.incarnation] = now + call.backoff_s
        call.backoff_s = min(call.backoff_s * 2, LAST_BACKOFF_S)

    async def _wait(self, route: Route, call: Call) -> None:
        """Wait for the table to change or a replica to come within reach again.

        Raises:
            ApiError: 503 with the reason, when waiting is pointless, too long, or too many wait already.
        """
        now = self._now()
        why = self._why(route)
        if not route.targets and route.model.lifecycle is Lifecycle.ON_DEMAND:
            self._hints.demand(route)
        if call.give_up_at is None:
            call.give_up_at = now + self._limits.wait_s
        if not why.wait or now >= call.give_up_at or self._waiting >= self._limits.max_waiters:
            if call.refusal is not None and route.targets:
                raise call.refusal
            raise errors.model_unavailable(call.model, why.state, why.reason, why.retry_after_s)
        wakes = [call.give_up_at, *(self._ready_at(target, call, now) for target in route.targets)]
        self._waiting += 1
        metrics.WAITING.set(self._waiting)
        try:
            await self._projection.wait_change(max(0.001, min(wakes) - now))
        finally:
            self._waiting -= 1
            metrics.WAITING.set(self._waiting)

    @staticmethod
    def _why(route: Route) -> Unavailability:
        if not route.targets:
            return route.unavailability
        return Unavailability("unreachable", "no replica accepts connections", wait=True, retry_after_s=2)

    def _release(self, incarnation: str) -> None:
        left = self._in_flight.get(incarnation, 1) - 1
        if left > 0:
            self._in_flight[incarnation] = left
        else:
            self._in_flight.pop(incarnation, None)
