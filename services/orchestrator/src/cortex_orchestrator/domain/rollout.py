"""Which ordinals of a model should exist while it moves from one specification to the next.

A rolling change starts the successor under a free ordinal beside the replica that it replaces, and stops that one when
the successor serves. The successor keeps its ordinal, so ordinals name replicas but need not begin at 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of the model that exists in some way."""

    ordinal: int
    current: bool
    """Made by the present specification, or free to be made by it because it does not run."""
    running: bool
    serving: bool
    """Runs and is healthy now."""
    leaving: bool = False
    """Being stopped."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Ordinals to have. `held` ones run an older specification for now; others that do are stopped and started anew."""

    ordinals: tuple[int, ...]
    held: frozenset[int] = frozenset()
    replace_reasons: dict[int, str] = field(default_factory=dict[int, str])
    farewells: dict[int, str] = field(default_factory=dict[int, str])


def roll(replicas: int, members: Sequence[Member], no_room: str | None) -> Rollout:
    """Pure. `no_room` says why a successor cannot run beside what is there; None when it can.

    At most one successor is on its way at a time, and never more than `replicas` + 1 are to be there.
    """
    leaving = sorted(one.ordinal for one in members if one.leaving)
    stale = [one for one in members if one.running and not one.current and not one.leaving]
    fresh = sorted(
        (one for one in members if not one.leaving and (one.current or not one.running)),
        key=lambda one: (not one.serving, not one.running, one.ordinal),
    )
    if not stale:
        kept = [one.ordinal for one in fresh[:replicas]]
        return Rollout(_filled(kept, leaving, members, replicas))
    rollout = _replace(replicas, fresh[:replicas], stale, bool(leaving), no_room)
    return replace(rollout, ordinals=_filled(rollout.ordinals, leaving, members, replicas))


def _replace(
    replicas: int, fresh: Sequence[Member], stale: Sequence[Member], leaving: bool, no_room: str | None
) -> Rollout:
    serving = sum(one.serving for one in fresh)
    stale = sorted(stale, key=lambda one: one.ordinal)
    held = [one.ordinal for one in stale if one.serving][: max(0, replicas - serving)]
    coming = [one.ordinal for one in fresh[: replicas + 1 - len(held)]]
    idle = [one.ordinal for one in stale if not one.serving][: max(0, replicas - len(coming) - len(held))]
    ordinals = [*coming, *held, *idle]
    gone = [one.ordinal for one in stale if one.ordinal not in ordinals]
    farewells = dict.fromkeys(gone, "its specification changed; a successor takes its place")
    reasons: dict[int, str] = {}
    under_way = leaving or gone or idle or serving < len(coming)
    if not under_way and held and len(ordinals) >= replicas:
        if no_room is None:
            ordinals.append(_free({*ordinals, *farewells}))
        else:
            first = held.pop(0)
            reasons[first] = f"its specification changed; it is stopped before its successor starts: {no_room}"
    return Rollout(tuple(ordinals), frozenset(held), reasons, farewells)


def _filled(kept: Sequence[int], leaving: Sequence[int], members: Sequence[Member], replicas: int) -> tuple[int, ...]:
    """A replica that leaves is started anew in its own place; beyond those, the lowest free ordinals."""
    ordinals = [*kept, *leaving[: max(0, replicas - len(kept))]]
    while len(ordinals) < replicas:
        ordinals.append(_free({*ordinals, *(one.ordinal for one in members)}))
    return tuple(sorted(ordinals))


def _free(used: set[int]) -> int:
    ordinal = 0
    while ordinal in used:
        ordinal += 1
    return ordinal
