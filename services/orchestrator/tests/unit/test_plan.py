"""Situations and what is done in them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, EngineType
from cortex_orchestrator.domain.attempts import Attempt, BackoffPolicy, after_failure
from cortex_orchestrator.domain.observed import Exit, Observed, Phase, parse_labels
from cortex_orchestrator.domain.plan import (
    Absences,
    Adopt,
    Discard,
    Examine,
    Forget,
    Launch,
    Plan,
    Problem,
    Reject,
    Retire,
    Situation,
    Wanted,
    plan,
)
from cortex_orchestrator.domain.spec import ContainerSpec, wanted_replicas

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)


@pytest.fixture
def spec(make_spec: Callable[..., ContainerSpec]) -> ContainerSpec:
    return make_spec()


def seen(spec: ContainerSpec, phase: Phase = Phase.RUNNING) -> Observed:
    identity = parse_labels(spec.labels())
    assert identity is not None
    return Observed(identity, spec.name, "run-1", phase, exit=Exit(1) if phase is Phase.EXITED else None)


def decide(spec: ContainerSpec, wanted: Wanted | None, observed: Observed | None = None, **changes: object) -> Plan:
    replica = spec.replica_id
    base = Situation(
        now=NOW,
        wanted={replica: wanted} if wanted else {},
        observed={replica: observed} if observed else {},
        reported=frozenset({replica}),
        rejected=frozenset({replica}),
        started=frozenset({replica}),
    )
    return plan(replace(base, **changes))  # type: ignore[arg-type]


def kinds(made: Plan) -> list[type]:
    return [type(action) for action in made.actions]


def test_what_is_wanted_and_missing_is_launched(spec: ContainerSpec) -> None:
    (action,) = decide(spec, Wanted(spec)).actions
    assert action == Launch(spec, 0, "wanted and not there")


def test_what_somebody_else_removed_is_launched_and_said_to_be(spec: ContainerSpec) -> None:
    (action,) = decide(spec, Wanted(spec), vanished=frozenset({spec.replica_id})).actions
    assert isinstance(action, Launch)
    assert "somebody else removed it" in action.reason


def test_what_runs_and_can_never_be_reached_again_is_replaced(spec: ContainerSpec) -> None:
    lost = replace(seen(spec), detached="its network is gone")
    (action,) = decide(spec, Wanted(spec), lost).actions
    assert action == Retire(lost, "its network is gone")
    assert kinds(decide(spec, None, lost)) == [Retire]


def test_what_runs_as_wanted_is_left_alone(spec: ContainerSpec) -> None:
    assert decide(spec, Wanted(spec), seen(spec)).actions == ()


def test_what_runs_and_was_not_reported_is_adopted_before_anything_else(spec: ContainerSpec) -> None:
    changed = replace(spec, restart_generation=1)
    for wanted in (Wanted(spec), Wanted(changed), Wanted(), Wanted(problem=Problem("x", "y"))):
        assert kinds(decide(spec, wanted, seen(spec), started=frozenset())) == [Adopt]


def test_a_changed_specification_retires_the_old_run(spec: ContainerSpec) -> None:
    (action,) = decide(spec, Wanted(replace(spec, restart_generation=1)), seen(spec)).actions
    assert isinstance(action, Retire)
    assert action.reason == "its specification changed"


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(problem=Problem("engine_missing", "none"))])
def test_a_running_engine_outlives_the_loss_of_its_program(spec: ContainerSpec, wanted: Wanted) -> None:
    assert decide(spec, wanted, seen(spec)).actions == ()


@pytest.mark.parametrize(
    ("phase", "expected"), [(Phase.RUNNING, [Retire]), (Phase.EXITED, [Discard]), (Phase.CREATED, [Discard])]
)
def test_what_is_not_wanted_goes(spec: ContainerSpec, phase: Phase, expected: list[type]) -> None:
    assert kinds(decide(spec, None, seen(spec, phase))) == expected


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("everything", [True, False])
def test_an_absent_model_in_doubt_costs_nothing(spec: ContainerSpec, phase: Phase, everything: bool) -> None:
    doubtful = None if everything else frozenset({spec.model_id})
    assert decide(spec, None, seen(spec, phase), doubtful=doubtful).actions == ()


def test_an_engine_in_doubt_is_still_adopted(spec: ContainerSpec) -> None:
    made = decide(spec, None, seen(spec), doubtful=None, started=frozenset(), reported=frozenset())
    assert kinds(made) == [Adopt]


def test_an_end_is_examined_once_and_then_waited_for(spec: ContainerSpec) -> None:
    ended = seen(spec, Phase.EXITED)
    assert kinds(decide(spec, Wanted(spec), ended)) == [Examine]
    attempt = Attempt(spec.hash, failures=2, restarts=1, next_attempt_at=LATER, incarnation="run-1")
    waiting = decide(spec, Wanted(spec), ended, attempts={spec.replica_id: attempt})
    assert waiting == Plan((), wake_at=LATER)
    (action,) = decide(spec, Wanted(spec), ended, attempts={spec.replica_id: attempt}, now=LATER).actions
    assert action == Launch(spec, 2, "try again after failure 2")


def test_a_second_run_that_ended_is_examined_again(spec: ContainerSpec) -> None:
    attempt = Attempt(spec.hash, failures=1, incarnation="run-0")
    made = decide(spec, Wanted(spec), seen(spec, Phase.EXITED), attempts={spec.replica_id: attempt})
    assert kinds(made) == [Examine]


def test_a_new_specification_does_not_wait_for_the_old_ones_backoff(spec: ContainerSpec) -> None:
    attempt = Attempt(spec.hash, failures=9, next_attempt_at=LATER, incarnation="run-1")
    changed = replace(spec, restart_generation=1)
    for observed in (None, seen(spec, Phase.EXITED)):
        (action,) = decide(spec, Wanted(changed), observed, attempts={spec.replica_id: attempt}).actions
        assert action == Launch(changed, 0, "its specification changed")


def test_a_failed_launch_waits_too(spec: ContainerSpec) -> None:
    attempt = Attempt(spec.hash, failures=1, next_attempt_at=LATER)
    assert decide(spec, Wanted(spec), attempts={spec.replica_id: attempt}) == Plan((), wake_at=LATER)


def test_a_leftover_of_an_interrupted_launch_is_launched_anew(spec: ContainerSpec) -> None:
    assert kinds(decide(spec, Wanted(spec), seen(spec, Phase.CREATED))) == [Launch]


@pytest.mark.parametrize("phase", [None, Phase.CREATED, Phase.EXITED])
def test_a_problem_is_reported_once_and_ends_no_loop(spec: ContainerSpec, phase: Phase | None) -> None:
    wanted = Wanted(problem=Problem("engine_missing", "none"))
    observed = seen(spec, phase) if phase else None
    known = {spec.replica_id: Attempt(spec.hash, incarnation="run-1")}
    assert kinds(decide(spec, wanted, observed, attempts=known)) == [Reject]
    reported = {spec.replica_id: Attempt("", incarnation="run-1", problem="engine_missing")}
    assert decide(spec, wanted, observed, attempts=reported).actions == ()
    again = decide(spec, wanted, observed, attempts=reported, rejected=frozenset())
    assert kinds(again) == [Reject], "what was said of it meanwhile has to be taken back"
    assert kinds(decide(spec, Wanted(spec), observed, attempts=reported)) == [Launch]


def test_while_the_program_is_looked_for_nothing_happens(spec: ContainerSpec) -> None:
    assert decide(spec, Wanted()).actions == ()


def test_a_busy_replica_is_left_to_its_job(spec: ContainerSpec) -> None:
    assert decide(spec, Wanted(spec), busy=frozenset({spec.replica_id})).actions == ()
    assert decide(spec, None, seen(spec), busy=frozenset({spec.replica_id})).actions == ()


def test_a_document_without_a_cause_is_forgotten(spec: ContainerSpec) -> None:
    assert kinds(decide(spec, None)) == [Forget]


def test_replicas_are_independent_and_in_a_stable_order(make_spec: Callable[..., ContainerSpec]) -> None:
    specs = sorted((make_spec() for _ in range(3)), key=lambda one: one.replica_id)
    made = plan(Situation(NOW, {one.replica_id: Wanted(one) for one in reversed(specs)}, {}))
    assert [action.spec for action in made.actions if isinstance(action, Launch)] == specs


def test_absence_counts_from_when_it_was_first_seen() -> None:
    model = ModelId("m")
    absences = Absences().observe(frozenset({model}), NOW)
    assert absences.observe(frozenset({model}), LATER).doubtful(LATER, 15) == {model}
    assert absences.doubtful(NOW + timedelta(seconds=15), 15) == frozenset()
    back = absences.observe(frozenset(), LATER).observe(frozenset({model}), LATER)
    assert back.since == {model: LATER}


@pytest.mark.parametrize(("failures", "delay"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (99, 60)])
def test_the_delay_doubles_up_to_a_minute(failures: int, delay: float) -> None:
    assert BackoffPolicy().delay_s(failures) == delay


@pytest.mark.parametrize(
    ("previous", "ran_for_s", "failures"),
    [
        (None, 0, 1),
        (Attempt("h", failures=4), 1, 5),
        (Attempt("h", failures=4), 60, 1),
        (Attempt("other", failures=4), 1, 1),
    ],
)
def test_failures_count_per_specification_and_since_the_last_stable_run(
    previous: Attempt | None, ran_for_s: float, failures: int
) -> None:
    attempt = after_failure(previous, Attempt("h", incarnation="r"), ran_for_s, NOW, BackoffPolicy())
    assert (attempt.failures, attempt.incarnation) == (failures, "r")
    assert attempt.next_attempt_at == NOW + timedelta(seconds=BackoffPolicy().delay_s(failures))


def test_only_models_that_should_run_want_replicas() -> None:
    running = ModelDocumentV1(
        id=ModelId("a"),
        name="A",
        served_model_name="a",
        engine_type=EngineType.LLAMACPP,
        replicas=2,
        desired_state=DesiredState.RUNNING,
        aggregateversion=1,
    )
    stopped = running.model_copy(update={"id": "b", "desired_state": DesiredState.STOPPED})
    none = running.model_copy(update={"id": "c", "replicas": 0})
    assert list(wanted_replicas({"a": running, "b": stopped, "c": none})) == ["a-0", "a-1"]


def test_labels_that_are_not_ours_are_no_identity(spec: ContainerSpec) -> None:
    assert parse_labels({}) is None
    assert parse_labels(spec.labels() | {"cortex.ordinal": "many"}) is None
    identity = parse_labels(spec.labels(3))
    assert identity is not None
    assert (identity.replica_id, identity.restarts) == (spec.replica_id, 3)
