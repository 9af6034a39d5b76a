"""Properties of the choice of a replica."""

from collections import Counter
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.enums import RoutingPolicy
from cortex_gateway.domain.choice import Figures, Wish, build_ring, choose, ring_point

BRIEF = settings(max_examples=40, deadline=None)
POLICIES = list(RoutingPolicy)
LOADS = st.lists(st.integers(0, 50), min_size=1, max_size=12)
KEYS = [ring_point(b"conversation %d" % number) for number in range(400)]


def names(count: int) -> list[str]:
    return [f"replica-{number}" for number in range(count)]


def wish_for(count: int, point: int, factor: float, known: int | None = None) -> Wish:
    return Wish(build_ring(names(count)), point, factor, known)


@pytest.mark.parametrize(
    ("policy", "loads", "turn", "barred", "expected"),
    [
        (RoutingPolicy.LEAST_LOADED, (0,), 7, (), 0),
        (RoutingPolicy.LEAST_LOADED, (2, 1, 3), 0, (), 1),
        (RoutingPolicy.LEAST_LOADED, (0, 0, 0), 0, (), 0),
        (RoutingPolicy.LEAST_LOADED, (0, 0, 0), 1, (), 1),
        (RoutingPolicy.LEAST_LOADED, (1, 0, 0), 3, (), 1),
        (RoutingPolicy.LEAST_LOADED, (0, 5, 9), 0, (0,), 1),
        (RoutingPolicy.LEAST_LOADED, (0, 5), 0, (0, 1), None),
        (RoutingPolicy.PREFIX_AFFINITY, (1, 0), 0, (), 1),
        (RoutingPolicy.ROUND_ROBIN, (9, 0), 2, (), 0),
        (RoutingPolicy.ROUND_ROBIN, (9, 0), 3, (), 1),
        (RoutingPolicy.ROUND_ROBIN, (9, 0, 0), 3, (0,), 1),
    ],
)
def test_choice(policy, loads, turn, barred, expected):
    assert choose(policy, Figures(loads), turn, barred) == expected


def test_a_replica_with_more_slots_takes_more():
    figures = Figures((0, 0), (6, 2))
    taken = Counter[int]()
    for turn in range(80):
        index = choose(RoutingPolicy.LEAST_LOADED, figures, turn)
        assert index is not None
        taken[index] += 1
        figures.add(index, 1)
    assert taken == {0: 60, 1: 20}


@BRIEF
@given(st.sampled_from(POLICIES), LOADS, st.integers(0, 10**9), st.data())
def test_it_is_deterministic_and_never_takes_a_barred_replica(policy, loads, turn, data):
    barred = data.draw(st.sets(st.integers(0, len(loads) - 1)))
    wish = data.draw(st.sampled_from([None, wish_for(len(loads), KEYS[turn % 400], 1.25)]))
    chosen = choose(policy, Figures(loads), turn, barred, wish)
    assert chosen == choose(policy, Figures(loads), turn, barred, wish)
    assert chosen not in barred
    assert (chosen is None) is (len(barred) == len(loads))


@BRIEF
@given(LOADS, st.integers(0, 10**6))
def test_least_loaded_takes_the_least_loaded(loads, turn):
    chosen = choose(RoutingPolicy.LEAST_LOADED, Figures(loads), turn)
    assert chosen is not None
    assert loads[chosen] == min(loads)


@BRIEF
@given(st.sampled_from([RoutingPolicy.LEAST_LOADED, RoutingPolicy.ROUND_ROBIN]), st.integers(1, 12), st.data())
def test_nobody_starves(policy, count, data):
    """Of idle replicas every one has a request after as many turns, whichever requests have left meanwhile."""
    figures = Figures([0] * count)
    seen: set[int] = set()
    for turn in range(count):
        index = choose(policy, figures, turn)
        assert index is not None
        seen.add(index)
        if data.draw(st.booleans()):
            continue  # the request has left already
        figures.add(index, 1)
    assert seen == set(range(count))


@BRIEF
@given(LOADS, st.sampled_from(KEYS), st.floats(1.0, 4.0), st.data())
def test_affinity_never_loads_a_replica_beyond_its_bound(loads, point, factor, data):
    barred = data.draw(st.sets(st.integers(0, len(loads) - 1), max_size=len(loads) - 1))
    known = data.draw(st.none() | st.integers(0, len(loads) - 1))
    wish = wish_for(len(loads), point, factor, known)
    chosen = choose(RoutingPolicy.PREFIX_AFFINITY, Figures(loads), 0, barred, wish)
    assert chosen is not None
    free = [load for index, load in enumerate(loads) if index not in barred]
    assert loads[chosen] + 1 <= ceil(factor * (sum(free) + 1) / len(free))


def test_a_few_requests_do_not_drive_a_conversation_from_a_replica_with_many_slots():
    wish = wish_for(3, KEYS[0], 1.25, known=1)
    assert choose(RoutingPolicy.PREFIX_AFFINITY, Figures((0, 3, 0), (8, 8, 8)), 0, (), wish) == 1
    assert choose(RoutingPolicy.PREFIX_AFFINITY, Figures((0, 4, 0), (8, 8, 8)), 0, (), wish) != 1


@BRIEF
@given(st.lists(st.sampled_from(KEYS[:3]), min_size=1, max_size=200), st.integers(2, 8))
def test_few_hot_conversations_still_spread(points, count):
    """However few keys there are, no replica ever holds more than its bound."""
    ring = build_ring(names(count))
    figures = Figures([0] * count)
    for number, point in enumerate(points, start=1):
        index = choose(RoutingPolicy.PREFIX_AFFINITY, figures, 0, (), Wish(ring, point, 1.25))
        assert index is not None
        figures.add(index, 1)
        assert max(figures.loads) <= ceil(1.25 * number / count)


def test_the_replica_that_knows_the_conversation_is_taken_while_it_has_room():
    assert choose(RoutingPolicy.PREFIX_AFFINITY, Figures((1, 1, 1)), 0, (), wish_for(3, KEYS[0], 1.25, known=2)) == 2
    assert choose(RoutingPolicy.PREFIX_AFFINITY, Figures((0, 0, 9)), 0, (), wish_for(3, KEYS[0], 1.25, known=2)) != 2


def test_a_session_is_pinned_whatever_the_load():
    ring = build_ring(names(4))
    [home] = {choose(policy, Figures((0, 0, 0, 0)), 0, (), Wish(ring, KEYS[5])) for policy in POLICIES}
    assert home is not None
    crowded = [0, 0, 0, 0]
    crowded[home] = 1000
    assert choose(RoutingPolicy.LEAST_LOADED, Figures(crowded), 3, (), Wish(ring, KEYS[5])) == home


def homes(replicas: list[str]) -> list[str]:
    ring = build_ring(replicas)
    idle = Figures([0] * len(replicas))
    chosen = [choose(RoutingPolicy.PREFIX_AFFINITY, idle, 0, (), Wish(ring, point)) for point in KEYS]
    return [replicas[index] for index in chosen if index is not None]


@BRIEF
@given(st.integers(2, 12), st.data())
def test_when_a_replica_leaves_only_its_conversations_move(count, data):
    before = names(count)
    gone = data.draw(st.sampled_from(before))
    for old, new in zip(homes(before), homes([name for name in before if name != gone]), strict=True):
        assert new == old or old == gone


@BRIEF
@given(st.integers(1, 12))
def test_when_a_replica_comes_conversations_move_to_it_only(count):
    after = names(count + 1)
    moved = [new for old, new in zip(homes(after[:-1]), homes(after), strict=True) if old != new]
    assert set(moved) <= {after[-1]}
    assert len(moved) < len(KEYS) * 2.5 / (count + 1)


@BRIEF
@given(st.integers(2, 12), st.data())
def test_a_barred_replica_moves_nobody_elses_conversation(count, data):
    ring, idle = build_ring(names(count)), Figures([0] * count)
    barred = data.draw(st.integers(0, count - 1))
    for point in KEYS[:100]:
        before = choose(RoutingPolicy.PREFIX_AFFINITY, idle, 0, (), Wish(ring, point))
        after = choose(RoutingPolicy.PREFIX_AFFINITY, idle, 0, (barred,), Wish(ring, point))
        assert after == before or before == barred


@pytest.mark.parametrize("count", [2, 4, 16, 64])
def test_the_ring_is_fair(count):
    shares = Counter(homes(names(count)))
    assert max(shares.values()) < 4 * len(KEYS) / count + 4


def test_the_order_of_the_replicas_does_not_matter():
    """Two gateways that list replicas differently make the same choice."""
    assert homes(names(7)) == homes(list(reversed(names(7))))
