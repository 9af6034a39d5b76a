"""One attempt at one replica, and what is learnt from it: breakers, retries before the first byte, their budget."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

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
from cortex_gateway.domain.routing import Route, RoutingTable, Target
from cortex_gateway.fleet import Affinity, Fleet
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import Failure, Hints, UpstreamClient, UpstreamError, UpstreamRequest, UpstreamResponse
from cortex_gateway.upstream_metrics import UpstreamCell
from cortex_kit.logging import get_logger

log = get_logger()

MAX_ERROR_BYTES = 1024 * 1024
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 1.0
EVENT_STREAM = b"text/event-stream"


def anything(_route: Route) -> bool:
    """The default of `Call.may_use`."""
    return True


@dataclass(slots=True)
class Call:
    """A request to forward. `prepare` makes the engine's form of it, which may differ per route and replica."""

    model: str
    stream: bool
    request_id: str
    metrics: RouteMetrics
    prepare: Callable[[Route, Target], UpstreamRequest]
    key_id: str = ""
    batch: bool = False
    affinity: Affinity | None = None
    may_use: Callable[[Route], bool] = anything
    """Whether the key may be served by a fallback."""
    ping: Callable[[], Awaitable[None]] | None = None
    """Tells a client that waits for a model to wake that it is not forgotten."""
    since: float = 0.0
    route: Route | None = None
    target: Target | None = None
    sent: UpstreamRequest | None = None
    attempts: int = 0
    backoff_s: float = FIRST_BACKOFF_S
    wait_began: float | None = None
    pinged: float = 0.0
    refusal: ApiError | None = None
    """What an engine that was loading said last."""
    not_before: dict[str, float] | None = None
    begun: "tuple[Sent, Awaitable[UpstreamResponse]] | None" = None
    """A first attempt that is on its way; it holds a place of the model's gate."""

    def turn_over(self) -> None:
        """Begin with another model: what was learnt of the one before does not count."""
        self.attempts = 0
        self.backoff_s = FIRST_BACKOFF_S
        self.wait_began = None
        self.refusal = None
        self.not_before = None


@dataclass(slots=True)
class Answer:
    """A success that has begun; `first` are its first bytes. Close it in a `finally`."""

    fleet: Fleet
    target: Target
    sent: UpstreamRequest
    response: UpstreamResponse
    first: bytes
    is_stream: bool
    entered: float | None = None
    """Since when it has held a place of the model's gate."""

    def close(self) -> None:
        """Once."""
        fleet = self.fleet
        self.response.close()
        fleet.give(self.target.incarnation)
        if self.entered is not None:
            fleet.gate.leave(fleet.now() - self.entered)


class Sent:
    """A request on its way to a replica, which counts it as taken. `began`: when, by the loop's clock."""

    __slots__ = ("began", "figures", "fleet", "request", "route", "target")

    def __init__(
        self,
        fleet: Fleet,
        route: Route,
        target: Target,
        request: UpstreamRequest,
        figures: UpstreamCell,
        began: float,
    ) -> None:
        self.fleet = fleet
        self.route = route
        self.target = target
        self.request = request
        self.figures = figures
        self.began = began


class Attempts:
    """Owns the breakers of the replicas and the budget of retries."""

    def __init__(self, client: UpstreamClient, hints: Hints, breaker: BreakerPolicy, max_attempts: int) -> None:
        self._client = client
        self._hints = hints
        self._policy = breaker
        self._max_attempts = max_attempts
        self._breakers: dict[str, Breaker] = {}
        self._now = asyncio.get_running_loop().time
        self.budget = RetryBudget()

    def on_swap(self, table: RoutingTable) -> None:
        """Forget replicas that are gone."""
        live = {target.incarnation for route in table.routes for target in route.targets}
        metrics.ROUTES.set(len(live))
        for incarnation in self._breakers.keys() - live:
            del self._breakers[incarnation]

    def barred(self, fleet: Fleet, call: Call) -> Collection[int]:
        """Indices of the replicas that are out of reach for the moment."""
        if not self._breakers and call.not_before is None:
            return ()
        now = self._now()
        return [index for index, target in enumerate(fleet.targets) if self.ready_at(target, call, now) > now]

    def ready_at(self, target: Target, call: Call, now: float) -> float:
        """When a replica may be tried (again) by this call."""
        breaker = self._breakers.get(target.incarnation, CLOSED)
        ready = now if allows(breaker, now) else next_chance(breaker, now)
        return ready if call.not_before is None else max(ready, call.not_before.get(target.incarnation, 0.0))

    async def attempt(self, fleet: Fleet, route: Route, target: Target, call: Call) -> Answer | None:
        """Send once. None: it failed in a way that may be tried again, and is noted.

        Raises:
            ApiError: the engine's refusal, or a failure that must not be tried again.
        """
        request = call.prepare(route, target)
        if self._breakers:
            self._reserve_probe(target)
        fleet.take(target.incarnation)
        figures = call.metrics.upstream(target)
        figures.selected += 1
        sent = Sent(fleet, route, target, request, figures, self._now())
        return await self.conclude(sent, self._client.post(target.endpoint, request), call)

    async def conclude(self, sent: "Sent", response: Awaitable[UpstreamResponse], call: Call) -> Answer | None:
        """What follows from sending: see `attempt`."""
        call.target, call.sent = sent.target, sent.request
        answer: Answer | None = None
        try:
            answer = await self._judge(sent, await response, call)
        except UpstreamError as error:
            sent.figures.failures += 1
            self._on_failure(sent.route, sent.target, call, error)
        finally:
            if answer is None:
                sent.fleet.give(sent.target.incarnation)
        return answer

    def is_troubled(self, fleet: Fleet) -> bool:
        """Whether any of the replicas has failed lately."""
        breakers = self._breakers
        return bool(breakers) and any(target.incarnation in breakers for target in fleet.targets)

    def note_beginning(self, sent: "Sent") -> None:
        """An answer has begun, whatever it says."""
        sent.figures.latency.observe(self._now() - sent.began)
        if self._breakers:
            self._breakers.pop(sent.target.incarnation, None)

    def _reserve_probe(self, target: Target) -> None:
        breaker = self._breakers.get(target.incarnation)
        if breaker is not None:
            self._breakers[target.incarnation] = on_attempt(breaker, self._now(), self._policy)

    async def _judge(self, sent: "Sent", response: UpstreamResponse, call: Call) -> Answer | None:
        kept = False
        try:
            self.note_beginning(sent)
            if response.status >= 400:
                sent.figures.failures += response.status >= 500
                await self._refuse(response, call, sent.target)
                return None
            if response.status != 200:
                raise errors.engine_answer_unusable(f"status {response.status}")
            is_stream = call.stream and (response.header(b"content-type") or b"").startswith(EVENT_STREAM)
            sent.figures.answers += 1
            first = await response.read() if is_stream else b""
            kept = True
            return Answer(sent.fleet, sent.target, sent.request, response, first, is_stream)
        finally:
            if not kept:
                response.close()

    async def _refuse(self, response: UpstreamResponse, call: Call, target: Target) -> None:
        """Raise the engine's refusal, unless it is still loading: that costs it nothing, and the waiting time bounds it."""
        refusal = map_engine_error(response.status, await response.read_all(MAX_ERROR_BYTES), target.engine_type)
        if not refusal.loading:
            raise refusal.error
        call.metrics.retried("loading")
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
        self._trip(target, gone=error.refused or error.failure is Failure.NO_ANSWER)
        self._hints.suspect(target.replica_id, route.model.id, str(error))
        lost = errors.engine_lost()
        if error.failure is Failure.CONNECT:
            # Nothing was sent: bounded by the breaker and the waiting time alone.
            self._back_off(call, target)
        elif error.failure is Failure.NO_ANSWER:
            self._note_retry(call, target, error.failure.value, lost)
        else:
            raise lost from error

    def _trip(self, target: Target, *, gone: bool) -> None:
        before = self._breakers.get(target.incarnation, CLOSED)
        after = on_failure(before, self._now(), self._policy, gone=gone)
        self._breakers[target.incarnation] = after
        if after.open_until is not None and before.open_until is None:
            metrics.BREAKER_OPENS.labels(target.engine_type.value, target.replica_id).inc()
            log.warning("breaker_opened", replica_id=target.replica_id, failures=after.consecutive, gone=gone)

    def _note_retry(self, call: Call, target: Target, reason: str, error: ApiError) -> None:
        """Count an attempt that reached the engine; raises `error` when attempts or budget are spent."""
        call.attempts += 1
        if call.attempts >= self._max_attempts or not self.budget.withdraw():
            raise error
        call.metrics.retried(reason)
        self._back_off(call, target)

    def _back_off(self, call: Call, target: Target) -> None:
        if call.not_before is None:
            call.not_before = {}
        call.not_before[target.incarnation] = self._now() + call.backoff_s
        call.backoff_s = min(call.backoff_s * 2, LAST_BACKOFF_S)
