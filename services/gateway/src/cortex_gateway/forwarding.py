"""Finding a model and a replica and getting an answer to begin: places, choice, attempts, waiting, fallbacks."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from cortex_contracts.base import ModelId
from cortex_gateway import metrics
from cortex_gateway.admission import GatePolicy, Visitor
from cortex_gateway.attempts import Answer, Attempts, Call, Sent
from cortex_gateway.domain import errors
from cortex_gateway.domain.balancing import BreakerPolicy
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.fallbacks import candidates
from cortex_gateway.domain.hedging import Beginnings, HedgePolicy
from cortex_gateway.domain.routing import Route, RoutingTable, Target
from cortex_gateway.fleet import Fleet, FleetPolicy, Fleets
from cortex_gateway.hedging import Attempt, race
from cortex_gateway.ports import Hints, UpstreamClient, UpstreamRequest, UpstreamResponse
from cortex_gateway.projection import Projection
from cortex_gateway.waiting import WaitingRoom, WaitPolicy

__all__ = ["Answer", "Call", "Dispatcher", "Limits"]

OVERLOADED = 429
UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a request's search for an answer."""

    max_attempts: int = 4
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    wait: WaitPolicy = field(default_factory=WaitPolicy)
    gate: GatePolicy = field(default_factory=GatePolicy)
    fleet: FleetPolicy = field(default_factory=FleetPolicy)
    hedge: HedgePolicy = field(default_factory=HedgePolicy)


class Dispatcher:
    """Gets answers to begin."""

    def __init__(self, projection: Projection, client: UpstreamClient, hints: Hints, limits: Limits) -> None:
        self._projection = projection
        self._hedge = limits.hedge
        self._attempts = Attempts(client, hints, limits.breaker, limits.max_attempts)
        self._room = WaitingRoom(projection, hints, limits.wait)
        self._fleets = Fleets(limits.fleet, limits.gate)
        self._beginnings: dict[ModelId, Beginnings] = {}
        self._now = asyncio.get_running_loop().time

    def on_swap(self, table: RoutingTable) -> None:
        """Forget what is gone; let those who wait for a place see what came."""
        self._attempts.on_swap(table)
        self._fleets.on_swap(table)
        for model_id in self._beginnings.keys() - {route.model.id for route in table.routes}:
            del self._beginnings[model_id]

    def in_flight(self) -> list[tuple[str, int]]:
        """Name of each model and its requests at engines, for whoever counts."""
        return self._fleets.in_flight()

    async def open(self, call: Call) -> Answer:
        """Get an answer to begin, on whichever replica can; on a fallback's when the model itself cannot.

        Raises:
            ApiError: no replica or no place in time, or the engine's own refusal.
        """
        if call.begun is not None:
            answer = await self._conclude(call, *call.begun)
            if answer is not None:
                return answer
        else:
            self._attempts.budget.deposit()
        call.since = self._now()
        table = self._projection.table
        route = table.find(call.model)
        if route is None:
            raise errors.model_not_found(call.model)
        if route.model.fallbacks:
            chain = candidates(table, route, call.may_use)
            if len(chain) > 1:
                return await self._serve_any(chain, call)
        return await self._serve(call.model, call, patient=True)

    def at_rest(self, route: Route) -> Fleet | None:
        """The model's replicas, if one attempt at any of them is all that a request needs to plan for. Without waiting."""
        if route.model.fallbacks or self._hedge.mode != "off" or not route.targets:
            return None
        fleet = self._fleets.of(route)
        return None if self._attempts.is_troubled(fleet) else fleet

    def note_beginning(self, sent: Sent) -> None:
        """An attempt made elsewhere, at a fleet `at_rest`, has an answer 200."""
        self._attempts.budget.deposit()
        self._attempts.note_beginning(sent)
        sent.figures.answers += 1

    async def _conclude(self, call: Call, sent: Sent, response: Awaitable[UpstreamResponse]) -> Answer | None:
        """See an attempt through that was begun elsewhere."""
        call.begun = None
        call.since = sent.began
        call.route = sent.route
        answer: Answer | None = None
        try:
            answer = await self._attempts.conclude(sent, response, call)
            if answer is not None:
                answer.entered = sent.began
            return answer
        finally:
            if answer is None:
                sent.fleet.gate.leave(self._now() - sent.began)

    async def _serve_any(self, chain: tuple[Route, ...], call: Call) -> Answer:
        """Each model in turn, none of them waited for; the first one patiently when all are out of reach."""
        failure: ApiError | None = None
        tried: tuple[Target | None, UpstreamRequest | None] = (None, None)
        for position, route in enumerate(chain):
            name = route.model.served_model_name if position else call.model
            call.turn_over()
            try:
                answer = await self._serve(name, call, patient=False)
            except ApiError as error:
                if position == 0 and not self._may_move_on(error, call):
                    raise
                if failure is None:
                    failure, tried = error, (call.target, call.sent)
                continue
            if position:
                metrics.FALLBACKS.labels("served").inc()
            return answer
        metrics.FALLBACKS.labels("exhausted").inc()
        call.turn_over()
        call.route = chain[0]
        call.target, call.sent = tried
        if failure is None or failure.status != UNAVAILABLE:
            raise failure or errors.model_not_found(call.model)
        return await self._serve(call.model, call, patient=True)

    def _may_move_on(self, error: ApiError, call: Call) -> bool:
        """Whether another model may try: ours is busy, down or has failed. What reached an engine costs of the budget."""
        if error.status == OVERLOADED or error.status == UNAVAILABLE:
            return True
        return error.status > OVERLOADED and (call.sent is None or self._attempts.budget.withdraw())

    async def _serve(self, name: str, call: Call, *, patient: bool) -> Answer:
        while True:
            route = self._projection.table.find(name)
            if route is None:
                raise errors.model_not_found(call.model)
            call.route = route
            fleet = self._fleets.of(route)
            barred = self._attempts.barred(fleet, call)
            if len(barred) >= len(fleet.targets):
                await self._wait(route, call, patient=patient)
                continue
            if not fleet.gate.try_enter():
                await fleet.gate.enter(Visitor(call.key_id, call.batch, call.since))
                if self._has_moved(name, fleet):
                    fleet.gate.abandon()
                    continue
                route = self._projection.table.by_name[name]
                barred = self._attempts.barred(fleet, call)
            answer = await self._try(route, fleet, barred, call)
            if answer is not None:
                return answer

    def _has_moved(self, name: str, fleet: Fleet) -> bool:
        """Whether the name means another model by now."""
        route = self._projection.table.find(name)
        return route is None or self._fleets.of(route) is not fleet

    async def _try(self, route: Route, fleet: Fleet, barred: Collection[int], call: Call) -> Answer | None:
        """One attempt, or two that race. The place in the gate is given back unless there is an answer."""
        entered = self._now()
        answer: Answer | None = None
        try:
            index = fleet.choose(barred, call.affinity)
            if index is None:
                return None
            target = fleet.targets[index]
            if self._hedge.mode == "off":
                answer = await self._attempts.attempt(fleet, route, target, call)
            else:
                answer = await self._hedged(route, fleet, target, call)
            if answer is not None:
                answer.entered = entered
                call.target, call.sent = answer.target, answer.sent
            return answer
        finally:
            if answer is None:
                fleet.gate.leave(self._now() - entered)

    async def _hedged(self, route: Route, fleet: Fleet, target: Target, call: Call) -> Answer | None:
        first = self._attempts.attempt(fleet, route, target, call)
        beginnings = self._beginnings.setdefault(route.model.id, Beginnings())
        delay_s = beginnings.delay_s(self._hedge)
        began = self._now()
        if delay_s is None or len(fleet.targets) == 1:
            answer = await first
        else:
            answer = await self._race(first, self._second(route, fleet, target, call), delay_s, fleet)
        if answer is not None:
            beginnings.note(self._now() - began)
        return answer

    async def _race(
        self, first: Attempt, second: Callable[[], Attempt | None], delay_s: float, fleet: Fleet
    ) -> Answer | None:
        """Both attempts hold a place while they race."""
        began: list[float] = []

        def start() -> Attempt | None:
            if not fleet.gate.try_enter():
                return None
            began.append(self._now())
            return second()

        try:
            return await race(first, start, delay_s)
        finally:
            for moment in began:
                fleet.gate.leave(self._now() - moment)

    def _second(self, route: Route, fleet: Fleet, taken: Target, call: Call) -> Callable[[], Attempt | None]:
        def start() -> Attempt | None:
            barred = set(self._attempts.barred(fleet, call))
            barred |= {index for index, target in enumerate(fleet.targets) if target.incarnation == taken.incarnation}
            index = fleet.choose(barred, None)
            if index is None or not self._attempts.budget.withdraw():
                return None
            return self._attempts.attempt(fleet, route, fleet.targets[index], call)

        return start

    async def _wait(self, route: Route, call: Call, *, patient: bool) -> None:
        now = self._now()
        if not patient:
            self._room.demand(route)
            raise self._room.unavailable(route, call)
        await self._room.wait(
            route, call, [self._attempts.ready_at(target, call, now) for target in route.targets], now
        )
