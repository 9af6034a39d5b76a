"""Which replica answers. Pure and cheap; the same at every gateway that has the same figures.

Bounded loads: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016).
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil, inf
from typing import Final

from cortex_contracts.enums import RoutingPolicy

_ROUND_ROBIN: Final = RoutingPolicy.ROUND_ROBIN
POINTS_PER_REPLICA = 64
_POINTS_PER_DIGEST = 8
LIGHT_LOAD = 4
"""So many requests are never too many for a replica with twice as many slots: its cache is worth more than idle others."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A circle of hashes: each replica owns several arcs, so that its keys spread over the others when it leaves."""

    points: tuple[int, ...]
    owners: tuple[int, ...]


def build_ring(replica_ids: Sequence[str]) -> Ring:
    """The ring of these replicas; owners are indices into `replica_ids`. It depends on nothing else."""
    marked = sorted(
        (int.from_bytes(digest[at : at + 8]), owner)
        for owner, replica_id in enumerate(replica_ids)
        for part in range(POINTS_PER_REPLICA // _POINTS_PER_DIGEST)
        for digest in (blake2b(f"{replica_id}/{part}".encode(), digest_size=64).digest(),)
        for at in range(0, 64, 8)
    )
    return Ring(tuple(point for point, _ in marked), tuple(owner for _, owner in marked))


def ring_point(key: bytes) -> int:
    """Where a key lies on every ring."""
    return int.from_bytes(blake2b(key, digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Wish:
    """A replica that a request would rather have. `factor` bounds its load against the mean; infinite pins."""

    ring: Ring
    point: int
    factor: float = inf
    known: int | None = None
    """The replica that has seen the longest prefix already, if any has."""


class Figures:
    """Load of each replica of a model, kept up to date one request at a time.

    `loads` are requests in flight, `slots` how many a replica works on at once, `costs` the one divided by the other.
    """

    __slots__ = ("costs", "loads", "slots")

    def __init__(self, loads: Sequence[int], slots: Sequence[int] | None = None) -> None:
        self.loads = list(loads)
        self.slots = list(slots) if slots is not None else [1] * len(self.loads)
        self.costs = [load / slot for load, slot in zip(self.loads, self.slots, strict=True)]

    def add(self, index: int, change: int) -> None:
        """Requests came to or left a replica."""
        load = self.loads[index] + change
        self.loads[index] = load
        self.costs[index] = load / self.slots[index]


def choose(
    policy: RoutingPolicy, figures: Figures, turn: int, barred: Collection[int] = (), wish: Wish | None = None
) -> int | None:
    """Index of the replica for the next request; None when all of them are barred.

    `least_loaded` takes the fewest requests per slot, ties rotating with `turn`; `round_robin` only rotates. A wish
    goes before both: it is granted at the replica that knows the conversation, else at the first on the ring, that
    would not be loaded beyond `factor` times its share (see LIGHT_LOAD for when there is little to share).
    """
    count = len(figures.costs)
    if len(barred) >= count:
        return None
    if wish is not None:
        return _grant(wish, figures, turn, barred)
    if policy is _ROUND_ROBIN:
        index = turn % count
        while index in barred:
            index = (index + 1) % count
        return index
    return _least(figures.costs, turn, barred)


def _least(costs: Sequence[float], turn: int, barred: Collection[int]) -> int:
    if barred:
        costs = [inf if index in barred else cost for index, cost in enumerate(costs)]
    least = min(costs)
    start = turn % len(costs)
    if start and least in costs[start:]:
        return costs.index(least, start)
    return costs.index(least)


def _grant(wish: Wish, figures: Figures, turn: int, barred: Collection[int]) -> int:
    fits = _bound(wish, figures, barred)
    if wish.known is not None and wish.known not in barred and fits(wish.known):
        return wish.known
    points, owners = wish.ring.points, wish.ring.owners
    start = bisect_left(points, wish.point)
    refused = set(barred)
    for offset in range(len(owners)):
        owner = owners[(start + offset) % len(owners)]
        if owner in refused:
            continue
        if fits(owner):
            return owner
        refused.add(owner)
    return _least(figures.costs, turn, barred)


def _bound(wish: Wish, figures: Figures, barred: Collection[int]) -> Callable[[int], bool]:
    """Whether one more request fits at a replica. Somewhere it always does: the bounds add up to more than all load."""
    if wish.factor == inf:
        return lambda index: True
    loads, slots = figures.loads, figures.slots
    if barred:
        free = [index for index in range(len(loads)) if index not in barred]
        total, capacity = sum(loads[index] for index in free), sum(slots[index] for index in free)
    else:
        total, capacity = sum(loads), sum(slots)
    share = wish.factor * (total + 1) / capacity
    return lambda index: loads[index] + 1 <= max(ceil(share * slots[index]), min(LIGHT_LOAD, slots[index] // 2))
