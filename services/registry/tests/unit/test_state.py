"""The projection of a model's state, as a table of situations."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import ModelDocumentV1, PullProgress, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Lifecycle
from cortex_registry.domain.state import project

MODEL = ModelId("01890000-0000-7000-8000-000000000001")
ASKED = datetime(2026, 1, 1, tzinfo=UTC)


def model(desired: str = "running", replicas: int = 1) -> ModelDocumentV1:
    return ModelDocumentV1(
        aggregateversion=1,
        id=MODEL,
        name="m",
        served_model_name="m",
        engine_type="llamacpp",
        replicas=replicas,
        desired_state=desired,
    )


def at(seconds: int) -> datetime:
    return ASKED + timedelta(seconds=seconds)


def replica(ordinal: int, state: str, **changes: Any) -> ReplicaDocumentV1:
    values: dict[str, Any] = {
        "aggregateversion": 1,
        "id": replica_id(MODEL, ordinal),
        "model_id": MODEL,
        "ordinal": ordinal,
        "engine_type": "llamacpp",
        "node": NodeId("n"),
        "runtime": "process",
        "spec_hash": "new",
        "state": state,
        "since": at(10),
    }
    return ReplicaDocumentV1(**(values | changes))


def verdict(ordinal: int, said: str, **changes: Any) -> VerdictDocumentV1:
    values: dict[str, Any] = {
        "aggregateversion": 1,
        "replica_id": replica_id(MODEL, ordinal),
        "model_id": MODEL,
        "spec_hash": "new",
        "endpoint": "http://127.0.0.1:1",
        "verdict": said,
        "since": at(20),
    }
    return VerdictDocumentV1(**(values | changes))


R = replica
V = verdict

SITUATIONS: list[tuple[str, ModelDocumentV1, list[ReplicaDocumentV1], list[VerdictDocumentV1], str, str, int]] = [
    ("never run", model("stopped"), [], [], "stopped", "stopped", 0),
    ("engine gone", model("stopped"), [R(0, "stopped")], [], "stopped", "stopped", 10),
    ("failed, then stopped", model("stopped"), [R(0, "failed")], [], "stopped", "stopped", 10),
    ("still running", model("stopped"), [R(0, "started")], [V(0, "healthy")], "stopping", "1 replica still", 10),
    ("drains", model("stopped"), [R(0, "draining"), R(1, "stopped")], [], "stopping", "1 replica still", 10),
    ("no replicas wanted", model("running", 0), [], [], "stopped", "scaled to zero", 0),
    ("zero wanted, one drains", model("running", 0), [R(0, "draining")], [], "stopping", "1 replica still", 10),
    ("nobody acted yet", model(), [], [], "starting", "waiting for the orchestrator", 0),
    ("only another model's", model(), [R(0, "started", model_id="x")], [], "starting", "waiting", 0),
    ("another ordinal", model(), [R(1, "started")], [V(1, "healthy")], "running", "1 replica healthy", 20),
    ("its successor loads", model(), [R(0, "started"), R(1, "started")], [V(0, "healthy"), V(1, "loading")], "running",
     "1 replica healthy", 20),
    ("its predecessor drains", model(), [R(0, "draining"), R(1, "started")], [V(1, "healthy")], "running",
     "1 replica healthy", 20),
    ("sleeps", model().model_copy(update={"lifecycle": Lifecycle.ON_DEMAND}), [], [], "stopped", "asleep", 0),
    ("pulls", model(), [R(0, "pulling")], [], "pulling", "pulled", 10),
    (
        "pulls, known size",
        model(),
        [R(0, "pulling", pull=PullProgress(current_bytes=50, total_bytes=200))],
        [],
        "pulling",
        "25 %",
        10,
    ),
    ("starts", model(), [R(0, "starting")], [], "starting", "the engine starts", 10),
    ("is replaced", model(), [R(0, "draining")], [], "starting", "replaced", 10),
    ("stopped though wanted", model(), [R(0, "stopped")], [], "starting", "about to start", 10),
    ("not probed", model(), [R(0, "started")], [], "loading", "not been probed", 10),
    ("old verdict", model(), [R(0, "started")], [V(0, "healthy", spec_hash="old")], "loading", "not been probed", 10),
    ("loads", model(), [R(0, "started")], [V(0, "loading", reason="503")], "loading", "503", 20),
    ("serves", model(), [R(0, "started")], [V(0, "healthy")], "running", "1 replica healthy", 20),
    ("serves on two", model(replicas=2), [R(0, "started"), R(1, "started")], [V(0, "healthy"), V(1, "healthy")],
     "running", "2 replicas healthy", 20),
    ("verdict outlives engine", model(), [R(0, "failed")], [V(0, "healthy")], "failed", "the engine failed", 10),
    ("sick", model(), [R(0, "started")], [V(0, "unhealthy", reason="timeout")], "failed", "timeout", 20),
    ("crashed", model(), [R(0, "failed", reason="killed", exit_code=137)], [], "failed", "killed (exit code 137)", 10),
    ("crashed, tries again", model(), [R(0, "failed", reason="x", next_attempt_at=at(60))], [], "failed",
     "next attempt at 00:01:00 UTC", 10),
    ("one of two sick", model(replicas=2), [R(0, "started"), R(1, "started")], [V(0, "healthy"), V(1, "unhealthy")],
     "degraded", "1 of 2 replicas healthy", 20),
    ("one of two crashed", model(replicas=2), [R(0, "started"), R(1, "failed", since=at(50))], [V(0, "healthy")],
     "degraded", "1 of 2 replicas healthy", 50),
    ("second one comes", model(replicas=2), [R(0, "started"), R(1, "started")], [V(0, "healthy"), V(1, "loading")],
     "running", "1 of 2 replicas healthy; the engine loads", 20),
    ("one crashed, one loads", model(replicas=2), [R(0, "failed"), R(1, "started")], [V(1, "loading")], "loading",
     "the engine loads", 20),
    ("all crashed", model(replicas=2), [R(0, "failed"), R(1, "failed", since=at(70))], [], "failed", "failed", 70),
    ("furthest counts", model(replicas=3), [R(0, "pulling"), R(1, "starting")], [], "starting", "engine starts", 10),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "replicas", "verdicts", "state", "reason", "since"),
    [situation[1:] for situation in SITUATIONS],
    ids=[situation[0] for situation in SITUATIONS],
)
def test_the_state_follows_from_what_was_observed(
    document: ModelDocumentV1,
    replicas: list[ReplicaDocumentV1],
    verdicts: list[VerdictDocumentV1],
    state: str,
    reason: str,
    since: int,
) -> None:
    projected = project(document, replicas, verdicts, desired_since=ASKED)
    assert (projected.state, projected.since) == (state, at(since))
    assert reason in projected.reason


@pytest.mark.parametrize(
    ("replicas", "verdicts", "state", "reason"),
    [
        ([replica(0, "started")], [verdict(0, "healthy")], "running", "1 replica healthy"),
        ([replica(0, "started")], [verdict(0, "unhealthy", reason="refused")], "failed", "refused; Docker is away"),
        ([replica(0, "starting", reason="soon")], [], "starting", "soon; Docker is away"),
    ],
)
def test_what_keeps_a_node_from_being_seen_is_part_of_the_reason(
    replicas: list[ReplicaDocumentV1], verdicts: list[VerdictDocumentV1], state: str, reason: str
) -> None:
    troubled = [one.model_copy(update={"trouble": "Docker is away"}) for one in replicas]
    projected = project(model(), troubled, verdicts, desired_since=ASKED)
    assert (projected.state, projected.reason) == (state, reason)
    stopping = project(model("stopped"), troubled, verdicts, desired_since=ASKED)
    assert stopping.reason == "1 replica still to stop; Docker is away"


def test_a_start_after_a_crash_is_newer_than_the_crash() -> None:
    projected = project(model(), [R(0, "failed")], [], desired_since=at(99))
    assert projected.since == at(99)
