"""Which sleeping-allowed models give way to one that is wanted now. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cortex_contracts.base import ModelId, ReplicaId
from cortex_orchestrator.domain.placement import Ask, Machine, Placed, Promise, Wish, place

DEFAULT_LOAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An on-demand model that runs. One `at_work` is never stopped for another."""

    model_id: ModelId
    replicas: tuple[ReplicaId, ...]
    load_seconds: float | None = None
    recent_demands: int = 0
    at_work: bool = False

    @property
    def cost(self) -> float:
        """Seconds that its users will wait for its next start, by how often it was asked for in the last hour."""
        return (self.load_seconds or DEFAULT_LOAD_S) * (1 + self.recent_demands)


def plan_eviction(
    ask: Ask,
    machine: Machine,
    promises: Mapping[ReplicaId, Promise],
    candidates: Sequence[Candidate],
    wish: Wish,
) -> tuple[ModelId, ...]:
    """The cheapest models whose end makes room, none of them needless; empty when nothing helps or nothing is needed."""
    idle = sorted((one for one in candidates if not one.at_work), key=lambda one: (one.cost, one.model_id))

    def fits(victims: Sequence[Candidate]) -> bool:
        left, smaller = _without(machine, promises, victims)
        return isinstance(place(ask, left, tuple(smaller.values()), wish), Placed)

    chosen: list[Candidate] = []
    while not fits(chosen):
        if len(chosen) == len(idle):
            return ()
        chosen.append(idle[len(chosen)])
    for victim in reversed(tuple(chosen)):
        fewer = [one for one in chosen if one is not victim]
        if fits(fewer):
            chosen = fewer
    return tuple(one.model_id for one in chosen)


def _without(
    machine: Machine, promises: Mapping[ReplicaId, Promise], victims: Sequence[Candidate]
) -> tuple[Machine, dict[ReplicaId, Promise]]:
    """The machine after the victims' end."""
    gone = {replica for victim in victims for replica in victim.replicas}
    freed = [promises[replica] for replica in gone if replica in promises and promises[replica].settled]
    gpus = tuple(
        replace(gpu, free=min(gpu.total, gpu.free + sum(promise.gpus.get(gpu.index, 0) for promise in freed)))
        for gpu in machine.gpus
    )
    host = machine.host_free + sum(promise.host - promise.mapped for promise in freed)
    after = replace(machine, host_free=min(machine.host_total, host), gpus=gpus)
    return after, {replica: promise for replica, promise in promises.items() if replica not in gone}
