"""Gateways that know of each other by the engines' reports only, simulated second by second."""

import random
from collections.abc import Callable

import pytest

from cortex_contracts.documents import EngineLoad
from cortex_gateway.admission import Gate, GatePolicy
from cortex_gateway.domain.prefix import PrefixMemory
from cortex_gateway.domain.routing import Endpoint, Keys, Route, Target, build_table
from cortex_gateway.fleet import Fleet, FleetPolicy

SLOTS = 8
REPLICAS = 2
REPORT_EVERY_S = 5
SERVICE_S = 4


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Simulated:
    """A gateway whose clients always want `demand` requests in flight."""

    def __init__(self, name: str, clock: Clock, demand: int) -> None:
        self.gate = Gate(f"sharing-{name}", GatePolicy(), clock)
        self.fleet = Fleet(FleetPolicy(), self.gate, PrefixMemory(10), clock)
        self.demand = demand
        self.running: list[tuple[float, str]] = []
        self.served = 0

    def step(self, route: Route, now: float, rng: random.Random) -> None:
        self.fleet.follow(route)
        for ends_at, incarnation in [one for one in self.running if one[0] <= now]:
            self.running.remove((ends_at, incarnation))
            self.fleet.give(incarnation)
            self.gate.leave(SERVICE_S)
            self.served += 1
        while len(self.running) < self.demand and self.gate.try_enter():
            index = self.fleet.choose((), None)
            assert index is not None
            incarnation = self.fleet.targets[index].incarnation
            self.fleet.take(incarnation)
            self.running.append((now + rng.uniform(0.5, 1.5) * SERVICE_S, incarnation))


@pytest.fixture
def route(model) -> Callable[..., Route]:
    """The model's route with what its engines reported."""
    table = build_table({"m1": model()}, {}, {}, Keys(lambda one, other: "k", lambda sealed: None))

    def make(busy: list[int], work: int = 0) -> Route:
        targets = tuple(
            Target(
                f"m1-{n}",  # type: ignore[arg-type]
                table.routes[0].engine_type,
                Endpoint("h", 1, "", b""),
                f"life-{n}",
                slots=SLOTS,
                load=EngineLoad(running=min(SLOTS, count), waiting=max(0, count - SLOTS), work_total=work),
            )
            for n, count in enumerate(busy)
        )
        route = table.routes[0]
        return Route(
            model=route.model,
            names=route.names,
            targets=targets,
            unavailability=route.unavailability,
            defaults={},
            capabilities=route.capabilities,
        )

    return make


@pytest.mark.parametrize("demands", [(100, 100), (100, 100, 100), (100, 2), (100, 0)])
def test_gateways_share_the_slots_without_starving_each_other_or_flooding_the_engines(route, demands):
    clock, rng = Clock(), random.Random(1)
    gateways = [Simulated(str(number), clock, demand) for number, demand in enumerate(demands)]
    present = route([0] * REPLICAS)
    totals: list[int] = []
    for tick in range(600):
        clock.seconds = tick * 0.25
        if tick % (REPORT_EVERY_S * 4) == 0:
            everything = [incarnation for gateway in gateways for _, incarnation in gateway.running]
            present = route([everything.count(f"life-{n}") for n in range(REPLICAS)], tick)
        for gateway in gateways:
            gateway.step(present, clock.seconds, rng)
        totals.append(sum(len(gateway.running) for gateway in gateways))
    capacity = SLOTS * REPLICAS
    late = totals[200:]
    assert min(late) >= capacity * 0.75, "slots lie idle"
    assert sum(late) / len(late) <= capacity * 1.25, "the engines queue what the gateways should"
    served = [gateway.served for gateway in gateways]
    for gateway, count in zip(gateways, served, strict=True):
        assert count >= min(gateway.demand * 20, sum(served) / len(served) * 0.7), served
