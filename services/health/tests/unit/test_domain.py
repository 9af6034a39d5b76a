"""The verdict as tables and properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import ReplicaState, Verdict
from cortex_health.domain.verdicts import (
    HealthState,
    Outcome,
    Policy,
    Probe,
    incarnation_of,
    next_delay,
    resume,
    same_verdict,
    step,
    to_document,
    with_load,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(unhealthy_after=3, healthy_after=2, young=timedelta(seconds=60))
LETTERS = {
    "o": Outcome.OK,
    "l": Outcome.LOADING,
    "r": Outcome.REFUSED,
    "t": Outcome.TIMEOUT,
    "b": Outcome.BROKEN,
    "x": Outcome.BAD_STATUS,
}
VERDICTS = {"-": None, "L": Verdict.LOADING, "H": Verdict.HEALTHY, "U": Verdict.UNHEALTHY}


def probe(letter: str) -> Probe:
    return Probe(LETTERS[letter], LETTERS[letter].value)


def play(letters: str, *, seconds_apart: float = 0.25, age: float = 0.0) -> str:
    """One letter per probe in, one letter per verdict out."""
    names = {verdict: letter for letter, verdict in VERDICTS.items()}
    state, said = HealthState(started_at=START), ""
    for n, letter in enumerate(letters):
        now = START + timedelta(seconds=age + n * seconds_apart)
        state, _ = step(state, probe(letter), now, POLICY)
        said += names[state.verdict]
    return said


@pytest.mark.parametrize(
    ("probes", "verdicts"),
    [
        ("o", "H"),
        ("rrllo", "LLLLH"),
        ("rrrrrrro", "LLLLLLLH"),
        ("tbro", "LLLH"),
        ("orro", "HHHH"),
        ("orrr", "HHHU"),
        ("ortx", "HHHU"),
        ("orrorr", "HHHHHH"),
        ("orrroo", "HHHUUH"),
        ("orrroroo", "HHHUUUUH"),
        ("orrrl", "HHHUL"),
        ("orrrlo", "HHHULH"),
        ("ol", "HL"),
        ("olr", "HLL"),
        ("xxx", "--U"),
        ("lxxx", "LLLU"),
        ("lxxlxx", "LLLLLL"),
        ("rxxo", "LLUU"),
    ],
)
def test_a_sequence_of_probes_gives_these_verdicts(probes, verdicts):
    assert play(probes) == verdicts


@pytest.mark.parametrize(("probes", "verdicts"), [("rrr", "--U"), ("lrrr", "LLLU"), ("llll", "LLLL"), ("o", "H")])
def test_an_engine_that_is_no_longer_young_must_answer(probes, verdicts):
    assert play(probes, age=61) == verdicts


def test_a_transition_carries_reason_and_streak():
    state = HealthState(started_at=START)
    state, first = step(state, probe("o"), START, POLICY)
    assert first is not None
    assert (first.previous, first.verdict, first.streak) == (None, Verdict.HEALTHY, 1)
    for _ in range(2):
        state, none = step(state, probe("r"), START, POLICY)
        assert none is None
    state, fall = step(state, probe("r"), START + timedelta(seconds=9), POLICY)
    assert fall is not None
    assert (fall.previous, fall.verdict, fall.reason, fall.streak) == (
        Verdict.HEALTHY,
        Verdict.UNHEALTHY,
        "refused",
        3,
    )
    assert state.since == START + timedelta(seconds=9)


def test_a_starting_engine_says_so_in_the_reason():
    state, transition = step(HealthState(started_at=START), probe("r"), START, POLICY)
    assert transition is not None
    assert state.reason == "starting: refused"


@given(st.lists(st.sampled_from(sorted(LETTERS)), max_size=40), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_hysteresis_holds_for_every_sequence(letters, unhealthy_after, healthy_after, young):
    policy = Policy(unhealthy_after, healthy_after, timedelta(hours=1 if young else -1))
    state = HealthState(started_at=START)
    failures = successes = 0
    for n, letter in enumerate(letters):
        outcome = LETTERS[letter]
        failures = 0 if outcome in (Outcome.OK, Outcome.LOADING) else failures + 1
        successes = successes + 1 if outcome is Outcome.OK else 0
        before = state
        state, transition = step(state, probe(letter), START + timedelta(seconds=n), policy)
        assert (transition is not None) is (state.verdict is not before.verdict)
        if transition is None:
            assert state.since == before.since
            continue
        assert transition.streak >= 1
        assert transition.reason == state.reason
        if state.verdict is Verdict.UNHEALTHY:
            assert failures >= unhealthy_after
        if state.verdict is Verdict.HEALTHY:
            assert successes >= (healthy_after if before.verdict is Verdict.UNHEALTHY else 1)
        if before.verdict is Verdict.HEALTHY and state.verdict is Verdict.LOADING:
            assert outcome is Outcome.LOADING


@given(st.lists(st.sampled_from(sorted(LETTERS)), max_size=30))
def test_enough_successes_always_heal_and_enough_refusals_always_kill(letters):
    state = HealthState(started_at=START)
    late = START + timedelta(hours=2)
    for letter in letters:
        state, _ = step(state, probe(letter), late, POLICY)
    well = sick = state
    for _ in range(3):
        well, _ = step(well, probe("o"), late, POLICY)
        sick, _ = step(sick, probe("r"), late, POLICY)
    assert well.verdict is Verdict.HEALTHY
    assert sick.verdict is Verdict.UNHEALTHY


@pytest.mark.parametrize(
    ("verdict", "failures", "successes", "delay"),
    [
        (None, 0, 0, 0.25),
        (Verdict.LOADING, 5, 0, 0.25),
        (Verdict.HEALTHY, 0, 9, 1.0),
        (Verdict.HEALTHY, 1, 0, 0.2),
        (Verdict.UNHEALTHY, 9, 0, 2.0),
        (Verdict.UNHEALTHY, 0, 1, 0.2),
    ],
)
def test_we_look_more_often_where_something_may_change(verdict, failures, successes, delay):
    policy = Policy(loading_interval_s=0.25, doubtful_interval_s=0.2, healthy_interval_s=1.0, unhealthy_interval_s=2.0)
    assert next_delay(HealthState(START, verdict, failures=failures, successes=successes), policy) == delay


@pytest.mark.parametrize(
    ("changes", "probed"),
    [
        ({}, True),
        ({"endpoint": None}, False),
        *(({"state": state}, False) for state in ReplicaState if state is not ReplicaState.STARTED),
    ],
)
def test_only_started_replicas_with_an_endpoint_are_probed(changes, probed, make_replica):
    assert (incarnation_of(make_replica(**changes)) is not None) is probed


@pytest.mark.parametrize(
    ("changes", "resumed"),
    [
        ({}, True),
        ({"spec_hash": "hash-2"}, False),
        ({"endpoint": "http://127.0.0.1:1"}, False),
        ({"since": START + timedelta(seconds=100)}, False),
    ],
)
def test_a_stored_verdict_is_resumed_for_the_same_incarnation_only(changes, resumed, make_replica):
    state, _ = step(HealthState(started_at=START), probe("o"), START + timedelta(seconds=5), POLICY)
    state = with_load(state, EngineLoad(slots_total=4))
    stored = to_document(make_replica(), state, 7)
    incarnation = incarnation_of(make_replica(**changes))
    assert incarnation is not None
    again = resume(incarnation, stored)
    assert again.verdict is (Verdict.HEALTHY if resumed else None)
    assert again.started_at == incarnation.since
    if resumed:
        assert same_verdict(to_document(make_replica(), again, 8), stored)


def test_without_a_conclusion_there_is_no_document(make_replica):
    assert to_document(make_replica(), HealthState(started_at=START), 1) is None


def test_a_new_streak_is_no_change_but_a_new_reason_is(make_replica):
    state, _ = step(HealthState(started_at=START), probe("l"), START, POLICY)
    same, _ = step(state, probe("l"), START, POLICY)
    other, _ = step(state, probe("t"), START, POLICY)
    document = to_document(make_replica(), state, 1)
    assert same.streak == 2
    assert same_verdict(document, to_document(make_replica(), same, 2))
    assert not same_verdict(document, to_document(make_replica(), other, 2))
    assert not same_verdict(document, None)
    assert same_verdict(None, None)
