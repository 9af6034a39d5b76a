"""The reconciler on fakes: desire in, documents and events out."""

import asyncio
from typing import Any

from cortex_contracts.documents import PullProgress
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState
from cortex_kit.errors import DomainError
from cortex_kit.kv import Change


async def test_a_wanted_model_becomes_a_started_document_with_an_endpoint(stage: Any) -> None:
    await stage.started()
    document = stage.store.documents[stage.replica_id]
    assert document.endpoint == "http://127.0.0.1:1"
    assert document.container == f"llamacpp-model-{stage.model.id}-0"
    states = [state for replica, state in stage.store.history if replica == stage.replica_id]
    assert list(dict.fromkeys(states)) == ["starting", "started"]
    await stage.until(lambda: stage.store.subjects() == ["container.created", "container.started"])
    assert stage.reconciler.readiness() is None


async def test_a_stopped_model_drains_stops_and_loses_its_document(stage: Any) -> None:
    await stage.started()
    stage.models.items = {stage.model.id: stage.model.model_copy(update={"desired_state": DesiredState.STOPPED})}
    stage.reconciler.hint()
    await stage.until(lambda: stage.replica_id not in stage.store.documents)
    assert (stage.replica_id, "draining") in stage.store.history
    await stage.until(lambda: stage.store.subjects()[2:] == ["container.stopped", "container.removed"])
    assert stage.runtime.replicas == {}


async def test_a_crash_is_reported_and_the_engine_comes_back(stage: Any) -> None:
    await stage.started()
    stage.runtime.lines = ("llama_model_load: error loading model: x",)
    stage.runtime.crash(stage.replica_id, 1)
    await stage.until(lambda: "container.failed" in stage.store.subjects())
    failed = next(event for event in stage.store.events if event.SUBJECT == "container.failed")
    assert failed.model_dump()["diagnosis"]["code"] == "load_failed"
    assert failed.model_dump()["exit_code"] == 1
    await stage.until(
        lambda: stage.state() == ReplicaState.STARTED and stage.store.documents[stage.replica_id].restarts == 1
    )


async def test_an_engine_that_keeps_crashing_is_tried_again_and_again(stage: Any) -> None:
    stage.runtime.default_mode = "crash"
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.store.subjects().count("container.failed") >= 3)
    failures = [event.model_dump() for event in stage.store.events if event.SUBJECT == "container.failed"]
    assert [failure["restarts"] for failure in failures[:3]] == [0, 1, 2]


async def test_a_start_that_is_refused_is_a_failure_with_a_next_attempt(stage: Any) -> None:
    stage.runtime.refuse_start = DomainError("gpu_runtime_missing", "no GPU here")
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    assert stage.store.documents[stage.replica_id].reason == "no GPU here"
    stage.runtime.refuse_start = None
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_new_specification_replaces_the_engine(stage: Any) -> None:
    await stage.started()
    old = stage.store.documents[stage.replica_id].spec_hash
    stage.models.items = {stage.model.id: stage.model.model_copy(update={"restart_generation": 1})}
    await stage.until(
        lambda: stage.state() == ReplicaState.STARTED and stage.store.documents[stage.replica_id].spec_hash != old
    )
    assert [call for call, _ in stage.runtime.calls].count("stop") == 1


async def test_an_empty_view_is_no_order_to_stop_until_the_grace_is_over(stage: Any) -> None:
    await stage.started()
    stage.models.items = {}
    await stage.rounds()
    assert stage.replica_id in stage.runtime.replicas
    stage.models.items = {stage.model.id: stage.model}
    await stage.rounds()
    stage.models.items = {}
    await stage.until(lambda: not stage.runtime.replicas)


async def test_a_deletion_that_was_seen_happening_is_an_order(stage: Any) -> None:
    await stage.started()
    stage.models.items = {}
    stage.reconciler.model_changed(Change(stage.model.id, stage.model, None, live=False))
    await stage.rounds()
    assert stage.replica_id in stage.runtime.replicas
    stage.reconciler.model_changed(Change(stage.model.id, stage.model, None))
    await stage.rounds()
    assert stage.replica_id not in stage.runtime.replicas


async def test_an_absence_that_a_disconnect_explains_never_counts(stage: Any) -> None:
    await stage.started()
    stage.connected = False
    stage.models.items = {}
    for _ in range(5):
        await stage.rounds()
    assert stage.replica_id in stage.runtime.replicas


async def test_an_unsynced_view_costs_no_engine_and_the_engine_is_adopted(stage: Any) -> None:
    await stage.started()
    successor = type(stage)(stage.runtime)
    await stage.end()
    successor.models.synced = False
    successor.begin()
    await successor.until(lambda: successor.state() == ReplicaState.STARTED)
    assert successor.store.subjects() == ["container.adopted"]
    assert stage.replica_id in stage.runtime.replicas
    await successor.end()


async def test_without_the_lease_nothing_is_touched(stage: Any) -> None:
    stage.lease.held = False
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.rounds()
    assert stage.runtime.calls == []
    assert stage.reconciler.readiness() is None  # a stand-by is ready to take over
    stage.lease.held = True
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_without_nats_a_crashed_engine_comes_back_and_the_news_follow(stage: Any) -> None:
    await stage.started()
    stage.store.away, stage.connected = True, False
    first = stage.runtime.replicas[stage.replica_id].incarnation
    stage.runtime.crash(stage.replica_id, 9)
    await stage.until(
        lambda: (
            stage.replica_id in stage.runtime.replicas and stage.runtime.replicas[stage.replica_id].incarnation != first
        )
    )
    stage.store.away, stage.connected = False, True
    stage.store.documents.clear()
    stage.reconciler.reconnected()
    await stage.until(lambda: "container.failed" in stage.store.subjects() and stage.state() == ReplicaState.STARTED)


async def test_a_missing_program_is_reported_once_and_healed_without_a_hand(stage: Any) -> None:
    stage.catalog.problem = DomainError("engine_missing", "install llama.cpp")
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    await stage.rounds()
    assert stage.store.subjects() == ["container.failed"]
    stage.catalog.problem = None
    stage.specs.forget((EngineType.LLAMACPP, None))
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_pull_shows_its_progress(stage: Any) -> None:
    stage.catalog.gate = asyncio.Event()
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.PULLING)
    assert stage.store.documents[stage.replica_id].pull == PullProgress(current_bytes=1, total_bytes=2)
    await stage.until(lambda: stage.store.subjects() == ["container.pulling"])
    stage.catalog.gate.set()
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert stage.catalog.pulls == 1


async def test_an_unreachable_runtime_makes_us_unready_and_changes_nothing(stage: Any) -> None:
    await stage.started()
    before = dict(stage.store.documents)
    stage.runtime.unreachable = True
    await stage.until(lambda: stage.reconciler.readiness() == "the runtime is away")
    assert stage.store.documents == before
    stage.runtime.unreachable = False
    await stage.until(lambda: stage.reconciler.readiness() is None)


async def test_documents_left_by_a_predecessor_are_removed(stage: Any) -> None:
    await stage.started()
    own = stage.store.documents[stage.replica_id]
    stage.replicas.items = {
        "gone-0": own.model_copy(update={"id": "gone-0"}),
        "else-0": own.model_copy(update={"id": "else-0", "node": "elsewhere"}),
        stage.replica_id: own,
    }
    stage.store.documents |= stage.replicas.items
    await stage.until(lambda: "gone-0" not in stage.store.documents)
    assert set(stage.store.documents) == {"else-0", stage.replica_id}
