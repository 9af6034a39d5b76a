"""Events about a replica name the request they belong to and what they follow from."""

from typing import Any

from cortex_contracts.documents import ExternalEndpoint
from cortex_contracts.enums import DesiredState, ReplicaState


async def test_a_start_follows_from_the_models_event_and_each_event_from_the_one_before(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"correlation_id": "request-1", "causation_id": "model-event-1"})
    await stage.started()
    await stage.until(lambda: len(stage.store.events) == 2)
    (created, origin), (started, then) = stage.store.origins
    assert (origin.correlation_id, origin.causation_id) == ("request-1", "model-event-1")
    assert (then.correlation_id, then.causation_id) == ("request-1", created)
    await stage.until(lambda: stage.store.documents[stage.replica_id].causation_id == started)
    assert stage.store.documents[stage.replica_id].correlation_id == "request-1"

    stage.change(correlation_id="request-2", causation_id="model-event-2", desired_state=DesiredState.STOPPED)
    await stage.until(lambda: len(stage.store.events) == 4)
    (stopped, origin), (_, then) = stage.store.origins[2:]
    assert (origin.correlation_id, origin.causation_id) == ("request-2", "model-event-2")
    assert (then.correlation_id, then.causation_id) == ("request-2", stopped)


async def test_a_crash_follows_from_the_last_event_also_for_a_successor(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"correlation_id": "request-1", "causation_id": "model-event-1"})
    await stage.started()
    await stage.until(lambda: stage.store.documents[stage.replica_id].causation_id)
    await stage.reporter.flushed(1)
    successor = type(stage)(stage.runtime)
    await stage.end()
    stored = dict(stage.store.documents)
    successor.models.items, successor.replicas.items = stage.models.items, stored
    successor.begin()
    await successor.until(lambda: successor.store.origins)
    ((adopted, origin),) = successor.store.origins
    assert (origin.correlation_id, origin.causation_id) == ("request-1", stored[stage.replica_id].causation_id)
    stage.runtime.crash(stage.replica_id, 1)
    await successor.until(lambda: len(successor.store.origins) > 1)
    assert successor.store.origins[1][1].causation_id == adopted
    await successor.end()


async def test_causes_are_no_part_of_what_an_engine_is(stage: Any) -> None:
    await stage.started()
    stage.change(correlation_id="another", causation_id="other")
    await stage.rounds()
    assert stage.subjects() == ["container.created", "container.started"]
    assert stage.state() == ReplicaState.STARTED


async def test_a_model_with_external_endpoints_is_left_to_others(stage: Any) -> None:
    endpoint = ExternalEndpoint(url="http://10.0.0.5:8000")
    stage.models.items = {stage.model.id: stage.model.model_copy(update={"external": (endpoint,)})}
    stage.begin()
    await stage.rounds()
    assert (stage.runtime.calls, stage.store.history) == ([], [])
