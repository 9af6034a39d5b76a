"""The runtime goes away and comes back; what is removed behind our back; what is over before it was looked at."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cortex_contracts.documents import PullProgress
from cortex_contracts.enums import DesiredState, Lifecycle, ReplicaState, Verdict
from cortex_kit.errors import DomainError
from cortex_orchestrator.domain.observed import Exit, Observed, Phase
from cortex_testing.virtual_time import LoopClock


def document(stage: Any) -> Any:
    return stage.store.documents[stage.replica_id]


def failures(stage: Any) -> list[Any]:
    return [event for event in stage.store.events if event.SUBJECT == "container.failed"]


async def test_while_the_runtime_is_away_every_document_says_so_and_keeps_its_state(stage: Any) -> None:
    await stage.started()
    stage.judge(Verdict.HEALTHY)
    before = document(stage)
    stage.runtime.unreachable = True
    await stage.until(lambda: document(stage).trouble)
    assert "the runtime is away" in document(stage).trouble
    assert "UTC" in document(stage).trouble
    assert (document(stage).state, document(stage).since) == (ReplicaState.STARTED, before.since)
    assert stage.reconciler.readiness() == "the runtime is away"
    writes = len(stage.store.history)
    await asyncio.sleep(60)
    assert len(stage.store.history) == writes, "said once, not every round"
    stage.runtime.unreachable = False
    await stage.until(lambda: document(stage).trouble is None)
    assert document(stage).endpoint == before.endpoint
    assert stage.store.subjects() == ["container.created", "container.started"]


async def test_a_model_that_is_wanted_while_the_runtime_is_away_says_what_it_waits_for(stage: Any) -> None:
    stage.runtime.unreachable = True
    asleep = stage.model.model_copy(update={"id": "m2", "lifecycle": Lifecycle.ON_DEMAND})
    stage.models.items = {stage.model.id: stage.model, "m2": asleep}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.STARTING and document(stage).trouble)
    assert list(stage.store.documents) == [stage.replica_id]
    stage.runtime.unreachable = False
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert document(stage).trouble is None


async def test_a_model_that_is_stopped_before_the_runtime_is_back_leaves_nothing(stage: Any) -> None:
    stage.runtime.unreachable = True
    stage.change()
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.STARTING)
    stage.change(desired_state=DesiredState.STOPPED)
    stage.runtime.unreachable = False
    await stage.until(lambda: stage.state() is None)
    assert stage.runtime.calls == []


async def test_a_runtime_that_refuses_to_tell_is_as_good_as_away(stage: Any) -> None:
    await stage.started()
    listed = stage.runtime.list_owned

    async def refuse() -> Sequence[Observed]:
        raise DomainError("engine_start_failed", "listing engines: 500 oops", status=503)

    stage.runtime.list_owned = refuse
    await stage.until(lambda: document(stage).trouble)
    stage.runtime.list_owned = listed
    await stage.until(lambda: document(stage).trouble is None)


async def ended_while_away(stage: Any, code: int, *, finished: Callable[[], Any]) -> Any:
    await stage.started()
    await stage.rounds()
    stage.runtime.unreachable = True
    await stage.until(lambda: document(stage).trouble)
    await asyncio.sleep(10)
    stage.runtime.crash(stage.replica_id, code)
    seen = stage.runtime.replicas[stage.replica_id]
    stage.runtime.replicas[stage.replica_id] = replace(seen, exit=Exit(code), finished_at=finished())
    stage.runtime.unreachable = False
    await stage.until(lambda: failures(stage))
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert len(stage.runtime.replicas) == 1
    return failures(stage)[0].diagnosis.code


async def test_an_engine_that_ended_with_its_runtime_is_said_to_and_is_started_again(stage: Any) -> None:
    assert await ended_while_away(stage, 0, finished=LoopClock().now) == "runtime_restarted"


async def test_an_engine_that_crashed_meanwhile_is_told_as_a_crash(stage: Any) -> None:
    assert await ended_while_away(stage, 139, finished=LoopClock().now) == "segmentation_fault"


async def test_an_engine_that_ended_long_before_has_its_own_reasons(stage: Any) -> None:
    code = await ended_while_away(stage, 137, finished=lambda: LoopClock().now() - timedelta(minutes=5))
    assert code == "killed"


async def test_what_somebody_else_removed_is_told_and_made_again(stage: Any) -> None:
    await stage.started()
    del stage.runtime.replicas[stage.replica_id]
    await stage.until(lambda: len(stage.store.subjects()) == 5)
    assert stage.store.subjects()[2:] == ["container.removed", "container.created", "container.started"]
    removed = next(event for event in stage.store.events if event.SUBJECT == "container.removed")
    assert removed.reason == "somebody else removed it"
    assert document(stage).restarts == 1
    stage.models.items = {}
    del stage.runtime.replicas[stage.replica_id]
    await stage.until(lambda: stage.state() is None)


async def test_what_nobody_can_reach_any_more_is_replaced(stage: Any) -> None:
    await stage.started()
    seen = stage.runtime.replicas[stage.replica_id]
    stage.runtime.replicas[stage.replica_id] = replace(seen, detached="it lost its network")
    await stage.until(lambda: "container.stopped" in stage.store.subjects())
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    stopped = next(event for event in stage.store.events if event.SUBJECT == "container.stopped")
    assert stopped.reason == "it lost its network"
    assert stage.runtime.replicas[stage.replica_id].incarnation != seen.incarnation


async def test_a_start_that_ends_while_the_runtime_is_being_asked_is_not_made_twice(stage: Any) -> None:
    """What was listed before the container was there says nothing of it."""
    listed = stage.runtime.list_owned

    async def slowly() -> Sequence[Observed]:
        found = await listed()
        await asyncio.sleep(1)  # a start is over within it
        return found

    started = stage.runtime.start

    async def start(replica: Any) -> Observed:
        await asyncio.sleep(0.7)
        return await started(replica)

    stage.runtime.list_owned, stage.runtime.start = slowly, start
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    await asyncio.sleep(10)
    assert [name for name, _ in stage.runtime.calls].count("create") == 1
    stage.models.items = {stage.model.id: stage.model.model_copy(update={"desired_state": DesiredState.STOPPED})}
    await stage.until(lambda: not stage.runtime.replicas)
    await asyncio.sleep(10)
    assert stage.store.subjects().count("container.stopped") == 1
    assert all(seen.phase is not Phase.CREATED for seen in stage.runtime.replicas.values())


async def test_a_pull_that_is_tried_again_shows_its_progress_and_its_next_failure(stage: Any) -> None:
    gate = asyncio.Event()
    first = DomainError("registry_unreachable", "the registry is away", status=503)

    async def find(engine: Any, image: str | None, on_progress: Callable[[str, PullProgress], None]) -> Any:
        if gate.is_set():
            on_progress("image:1", PullProgress(current_bytes=5, total_bytes=10))
            await asyncio.sleep(5)
            raise DomainError("disk_full", "the disk is full", status=503)
        on_progress("image:1", PullProgress())
        raise first

    stage.catalog.find = find
    stage.models.items = {stage.model.id: stage.model}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    assert document(stage).diagnosis.code == "registry_unreachable"
    gate.set()
    await stage.until(lambda: stage.state() == ReplicaState.PULLING)
    assert document(stage).pull.current_bytes == 5
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    assert document(stage).reason == "the disk is full"
    assert "docker system df" in document(stage).diagnosis.fix
    await stage.until(lambda: stage.state() == ReplicaState.PULLING)
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    assert len(failures(stage)) == 3
