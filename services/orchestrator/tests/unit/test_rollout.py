"""Moving a model from one specification to the next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_orchestrator.domain.rollout import Member, Rollout, roll


def old(ordinal: int, *, serving: bool = True, leaving: bool = False) -> Member:
    return Member(ordinal, current=False, running=True, serving=serving, leaving=leaving)


def new(ordinal: int, *, serving: bool = True, running: bool = True) -> Member:
    return Member(ordinal, current=True, running=running, serving=serving)


@pytest.mark.parametrize(
    ("replicas", "members", "ordinals", "held", "leave"),
    [
        (2, [], {0, 1}, set(), set()),
        (1, [new(3)], {3}, set(), set()),
        (1, [new(0, serving=False), new(1)], {1}, set(), set()),
        (2, [new(1)], {0, 1}, set(), set()),
        (0, [new(0)], set(), set(), set()),
        (1, [old(0)], {0, 1}, {0}, set()),
        (1, [old(0), new(1, serving=False)], {0, 1}, {0}, set()),
        (1, [old(0), new(1, serving=False, running=False)], {0, 1}, {0}, set()),
        (1, [old(0), new(1)], {1}, set(), {0}),
        (1, [old(0, leaving=True), new(1)], {1}, set(), set()),
        (1, [old(0, serving=False)], {0}, set(), set()),
        (2, [old(0), old(1)], {0, 1, 2}, {0, 1}, set()),
        (2, [old(0), old(1), new(2)], {0, 2}, {0}, {1}),
        (2, [old(0), new(2)], {0, 1, 2}, {0}, set()),
        (3, [old(0)], {0, 1, 2}, {0}, set()),
    ],
)
def test_a_successor_serves_before_its_predecessor_goes(
    replicas: int, members: list[Member], ordinals: set[int], held: set[int], leave: set[int]
) -> None:
    made = roll(replicas, members, None)
    assert (set(made.ordinals), set(made.held), set(made.farewells)) == (ordinals, held, leave)


def test_without_room_one_stops_before_its_successor_starts_and_says_why() -> None:
    made = roll(2, [old(0), old(1)], "no room on the GPU")
    assert set(made.ordinals) == {0, 1}
    assert made.held == {1}
    assert "no room on the GPU" in made.replace_reasons[0]
    assert roll(2, [old(0, leaving=True), old(1)], "no room").held == {1}
    assert roll(2, [old(1)], "no room") == Rollout((0, 1), frozenset({1}))
    assert roll(2, [old(1), new(0)], "no room").held == set()


members = st.lists(
    st.builds(
        Member,
        ordinal=st.integers(0, 6),
        current=st.booleans(),
        running=st.booleans(),
        serving=st.booleans(),
        leaving=st.booleans(),
    ).map(lambda one: one if one.running else Member(one.ordinal, one.current, False, False, one.leaving)),
    unique_by=lambda one: one.ordinal,
)


@given(st.integers(0, 4), members, st.sampled_from([None, "no room"]))
def test_what_serves_never_drops_below_what_is_asked_unless_there_is_no_room(
    replicas: int, found: list[Member], no_room: str | None
) -> None:
    made = roll(replicas, found, no_room)
    assert roll(replicas, list(reversed(found)), no_room) == made
    assert replicas <= len(made.ordinals) <= replicas + 1
    assert len(set(made.ordinals)) == len(made.ordinals)
    serving = {one.ordinal for one in found if one.serving and not one.leaving}
    current = {one.ordinal for one in found if one.current}
    kept = {ordinal for ordinal in serving if ordinal in made.held or (ordinal in made.ordinals and ordinal in current)}
    lost = 1 if made.replace_reasons else 0
    assert len(kept) >= min(replicas, len(serving)) - lost


@given(st.integers(1, 3), st.booleans())
def test_a_change_comes_to_an_end(replicas: int, room: bool) -> None:
    running = {ordinal: old(ordinal) for ordinal in range(replicas)}
    for _ in range(20):
        made = roll(replicas, list(running.values()), None if room else "no room")
        stops = {ordinal for ordinal, one in running.items() if not one.current and ordinal not in made.held}
        running = {ordinal: one for ordinal, one in running.items() if ordinal not in stops}
        running |= {ordinal: new(ordinal) for ordinal in made.ordinals if ordinal not in running}
    assert len(running) == replicas
    assert all(one.current for one in running.values())
