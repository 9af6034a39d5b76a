"""The replicas of a model as this gateway sees them: what is in flight where, and what others do there."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from cortex_contracts.base import ModelId
from cortex_contracts.enums import RoutingPolicy
from cortex_gateway.admission import Gate, GatePolicy
from cortex_gateway.domain.admission import room
from cortex_gateway.domain.choice import Figures, Ring, Wish, build_ring, choose, ring_point
from cortex_gateway.domain.load import Report, blend, foreign_at, note_report
from cortex_gateway.domain.prefix import PrefixMemory, conversation_of
from cortex_gateway.domain.routing import Route, RoutingTable, Target
from cortex_gateway.metrics import QUEUED

_PREFIX_AFFINITY: Final = RoutingPolicy.PREFIX_AFFINITY
REFRESH_S = 1.0
SESSION_HEADER = b"x-session-id"


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """`bounded_load`: how far above its share of the load a replica may be for the sake of its cache."""

    bounded_load: float = 1.25
    prefix_bytes: int = 16 * 1024
    prefix_blocks: int = 65_536
    default_slots: int = 2048
    slot_factor: float = 1.0


class Affinity:
    """What may tie a request to a replica: a session, which pins it, a key of a cache, or the body's own beginning."""

    __slots__ = ("body", "cache_key", "session")

    def __init__(self, session: bytes | None = None, cache_key: bytes | None = None, body: bytes = b"") -> None:
        self.session = session
        self.cache_key = cache_key
        self.body = body


class Fleet:
    """The replicas of one model. Counts survive a change of the table; a replica that is replaced starts at zero."""

    def __init__(self, policy: FleetPolicy, gate: Gate, memory: PrefixMemory, now: Callable[[], float]) -> None:
        self.gate = gate
        self.targets: tuple[Target, ...] = ()
        self.now = now
        self._policy = policy
        self._memory = memory
        self._route: Route | None = None
        self._counts: dict[str, int] = {}
        self._index: dict[str, int] = {}
        self._figures = Figures(())
        self._peaks: list[int] = []
        self._peaks_before: list[int] = []
        """The most we had at each replica since the last refresh, and between the two before."""
        self._reports: dict[str, Report] = {}
        self._ring: Ring | None = None
        self._alive: dict[str, int] = {}
        self._turn = 0
        self._refresh_at = 0.0
        self._others: Report | None = None
        gate.recheck = self._refresh

    def follow(self, route: Route) -> None:
        """Bring the figures up to date with a route and the time; cheap when there is nothing new."""
        if route is not self._route:
            self._adopt(route)
        if self.now() >= self._refresh_at:
            self._refresh()

    def choose(self, barred: Collection[int], affinity: Affinity | None) -> int | None:
        """Index of the replica for the next request, among `targets`; None when all are barred."""
        route = self._route
        if route is None or not self.targets:
            return None
        policy = route.model.routing_policy
        turn = self._turn
        self._turn = turn + 1
        if affinity is None or len(self.targets) == 1:
            return choose(policy, self._figures, turn, barred)
        if affinity.session is not None:
            return choose(policy, self._figures, turn, barred, Wish(self._the_ring(), ring_point(affinity.session)))
        if policy is not _PREFIX_AFFINITY:
            return choose(policy, self._figures, turn, barred)
        return self._choose_by_prefix(turn, barred, affinity)

    def _choose_by_prefix(self, turn: int, barred: Collection[int], affinity: Affinity) -> int | None:
        factor = self._policy.bounded_load
        if affinity.cache_key is not None:
            wish = Wish(self._the_ring(), ring_point(affinity.cache_key), factor)
            return choose(_PREFIX_AFFINITY, self._figures, turn, barred, wish)
        conversation = conversation_of(affinity.body, self._policy.prefix_bytes)
        known = self._memory.find(conversation.blocks, self._alive)
        wish = Wish(self._the_ring(), conversation.point, factor, None if known is None else self._alive[known])
        index = choose(_PREFIX_AFFINITY, self._figures, turn, barred, wish)
        if index is not None and conversation.blocks:
            self._memory.remember(conversation.blocks, self.targets[index].replica_id)
        return index

    def take(self, incarnation: str) -> None:
        """A request goes to a replica; `give` it back."""
        count = self._counts.get(incarnation, 0) + 1
        self._counts[incarnation] = count
        index = self._index.get(incarnation)
        if index is not None:
            self._figures.add(index, 1)
            if count > self._peaks[index]:  # noqa: PLR1730 - a call costs more
                self._peaks[index] = count

    def give(self, incarnation: str) -> None:
        """A request has left a replica, which may be gone meanwhile."""
        count = self._counts.get(incarnation, 0) - 1
        if count > 0:
            self._counts[incarnation] = count
        else:
            self._counts.pop(incarnation, None)
        index = self._index.get(incarnation)
        if index is not None:
            self._figures.add(index, -1)

    @property
    def in_flight(self) -> int:
        """Requests of ours at all replicas."""
        return sum(self._counts.values())

    @property
    def loads(self) -> tuple[int, ...]:
        """Requests at each replica: ours, and those of others as far as known."""
        return tuple(self._figures.loads)

    def _the_ring(self) -> Ring:
        if self._ring is None:
            self._ring = build_ring([target.replica_id for target in self.targets])
        return self._ring

    def _adopt(self, route: Route) -> None:
        now = self.now()
        members = tuple(target.replica_id for target in route.targets)
        if members != tuple(self._alive):
            self._ring = None
            self._alive = {replica_id: index for index, replica_id in enumerate(members)}
        self._route = route
        peaks = {
            target.incarnation: (peak, before)
            for target, peak, before in zip(self.targets, self._peaks, self._peaks_before, strict=True)
        }
        self.targets = route.targets
        self._index = {target.incarnation: index for index, target in enumerate(route.targets)}
        self._peaks, self._peaks_before = [], []
        known, self._reports = self._reports, {}
        news = False
        for target in route.targets:
            name = target.incarnation
            own = self._counts.get(name, 0)
            peak, before = peaks.get(name, (own, own))
            self._peaks.append(peak)
            self._peaks_before.append(before)
            report = self._reports[name] = note_report(target.load, max(own, peak, before), now, known.get(name))
            news = news or report is not known.get(name)
        self._update(now, news=news)

    def _refresh(self) -> None:
        """Time has passed: what was reported counts less, and what was in flight a while ago not at all."""
        now = self.now()
        self._refresh_at = now + REFRESH_S
        self._peaks_before = self._peaks
        self._peaks = [self._counts.get(target.incarnation, 0) for target in self.targets]
        self._update(now, news=False)

    def _update(self, now: float, *, news: bool) -> None:
        foreign = [foreign_at(self._reports[target.incarnation], now) for target in self.targets]
        default = self._policy.default_slots
        slots = [target.slots or default for target in self.targets]
        own = [self._counts.get(target.incarnation, 0) for target in self.targets]
        self._figures = Figures([ours + theirs for ours, theirs in zip(own, foreign, strict=True)], slots)
        if news:
            self._others = blend(self._others, sum(foreign), now)
        capacity = int(sum(slots) * self._policy.slot_factor)
        if self.targets:
            self.gate.set_room(room(capacity, foreign_at(self._others, now) if self._others is not None else 0))


class Fleets:
    """The fleets of all models that were asked for."""

    def __init__(self, policy: FleetPolicy, gate: GatePolicy) -> None:
        self._policy = policy
        self._gate_policy = gate
        self._memory = PrefixMemory(policy.prefix_blocks)
        self._fleets: dict[ModelId, Fleet] = {}
        self._now = asyncio.get_running_loop().time

    def of(self, route: Route) -> Fleet:
        """The model's fleet, up to date."""
        fleet = self._fleets.get(route.model.id)
        if fleet is None:
            name = route.model.served_model_name
            gate = Gate(name, self._gate_policy, self._now)
            fleet = self._fleets[route.model.id] = Fleet(self._policy, gate, self._memory, self._now)
        fleet.follow(route)
        return fleet

    def in_flight(self) -> list[tuple[str, int]]:
        """Name of each model and its requests at engines."""
        return [(fleet.gate.model, fleet.in_flight) for fleet in self._fleets.values()]

    def on_swap(self, table: RoutingTable) -> None:
        """Follow the table where somebody waits; forget models that are gone."""
        present = {route.model.id: route for route in table.routes}
        for model_id in self._fleets.keys() - present.keys():
            gate = self._fleets.pop(model_id).gate
            gate.close()
            QUEUED.remove(gate.model)
        for model_id, fleet in self._fleets.items():
            if fleet.gate.waiting:
                fleet.follow(present[model_id])
