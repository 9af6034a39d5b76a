"""Starts that take too long, stops that drain, models that sleep, models that are started once, changes while running."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from cortex_contracts.base import replica_id
from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.enums import DesiredState, Lifecycle, ReplicaState, Verdict
from cortex_kit.errors import TransientError
from cortex_testing.virtual_time import LoopClock


async def test_a_replica_that_is_not_healthy_in_time_is_stopped_and_tried_again(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"startup_timeout_s": 60})
    await stage.started()
    stage.judge(Verdict.LOADING)
    await asyncio.sleep(59)
    assert stage.state() == ReplicaState.STARTED
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    document = stage.store.documents[stage.replica_id]
    assert document.diagnosis.code == "startup_timeout"
    assert document.endpoint is None
    assert "60 s" in document.reason
    assert document.next_attempt_at is not None
    failed = next(event for event in stage.store.events if event.SUBJECT == "container.failed")
    assert (failed.diagnosis.code, failed.log_tail) == ("startup_timeout", stage.runtime.lines)
    await stage.until(
        lambda: stage.state() == ReplicaState.STARTED and stage.store.documents[stage.replica_id].restarts
    )


@pytest.mark.slow
async def test_a_replica_that_served_or_that_nobody_probes_is_never_late(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"startup_timeout_s": 60})
    await stage.started()
    await asyncio.sleep(600)
    assert stage.state() == ReplicaState.STARTED
    stage.judge(Verdict.HEALTHY)
    await stage.rounds()
    assert stage.store.documents[stage.replica_id].load_seconds == pytest.approx(600, abs=1)
    stage.judge(Verdict.UNHEALTHY)
    await asyncio.sleep(600)
    assert stage.state() == ReplicaState.STARTED
    assert "container.failed" not in stage.store.subjects()


async def test_a_stop_waits_until_no_request_is_in_flight(stage: Any) -> None:
    await serving(stage)
    stage.change(desired_state=DesiredState.STOPPED, stop_timeout_s=30)
    await stage.until(lambda: stage.state() == ReplicaState.DRAINING)
    for _ in range(10):
        await asyncio.sleep(1)
        stage.judge(Verdict.HEALTHY, running=2, waiting=0, sampled_at=LoopClock().now())
    assert ("stop", stage.replica_id) not in stage.runtime.calls
    stage.judge(Verdict.HEALTHY, running=0, waiting=0, sampled_at=LoopClock().now())
    began = LoopClock().monotonic()
    await stage.until(lambda: ("stop", stage.replica_id) in stage.runtime.calls)
    assert LoopClock().monotonic() - began < 1


async def test_a_drain_ends_before_the_stop_timeout_does(stage: Any) -> None:
    await serving(stage)
    stage.change(desired_state=DesiredState.STOPPED, stop_timeout_s=10)
    began = LoopClock().monotonic()
    while ("stop", stage.replica_id) not in stage.runtime.calls:
        await asyncio.sleep(0.5)
        if stage.replica_id in stage.store.documents:
            stage.judge(Verdict.HEALTHY, running=2, sampled_at=LoopClock().now())
    assert 7.9 <= LoopClock().monotonic() - began <= 9


async def test_without_word_of_the_load_a_stop_waits_only_a_little(stage: Any) -> None:
    await serving(stage)
    began = LoopClock().monotonic()
    stage.change(desired_state=DesiredState.STOPPED)
    await stage.until(lambda: ("stop", stage.replica_id) in stage.runtime.calls)
    assert 3 <= LoopClock().monotonic() - began <= 5


async def serving(stage: Any) -> None:
    await stage.started()
    stage.judge(Verdict.HEALTHY, running=0, waiting=0, work_total=5)
    await stage.until(lambda: stage.store.documents[stage.replica_id].load_seconds)


async def on_demand(stage: Any, **changes: Any) -> None:
    stage.change(lifecycle=Lifecycle.ON_DEMAND, idle_ttl_s=60, **changes)
    stage.begin()
    await stage.rounds()


async def demand(stage: Any, age_s: float = 0) -> None:
    await stage.waker.demanded(stage.model.id, LoopClock().now() - timedelta(seconds=age_s))


async def test_an_on_demand_model_sleeps_until_it_is_demanded_and_again_after_its_idle_time(stage: Any) -> None:
    await on_demand(stage)
    assert stage.store.history == []
    await demand(stage)
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    stage.judge(Verdict.HEALTHY, running=1, waiting=0, work_total=5)
    await asyncio.sleep(300)
    assert stage.state() == ReplicaState.STARTED
    stage.judge(Verdict.HEALTHY, running=0, waiting=0, work_total=9)
    await asyncio.sleep(50)
    stage.judge(Verdict.HEALTHY, running=0, waiting=0, work_total=10)
    await asyncio.sleep(55)
    assert stage.state() == ReplicaState.STARTED
    await stage.until(lambda: stage.state() is None)
    stopped = next(event for event in stage.store.events if event.SUBJECT == "container.stopped")
    assert "no request came" in stopped.reason
    await demand(stage)
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_demand_that_is_late_or_needless_changes_nothing(stage: Any) -> None:
    await on_demand(stage)
    await demand(stage, age_s=61)
    await stage.waker.demanded("unknown", LoopClock().now())
    stage.change(desired_state=DesiredState.STOPPED)
    await demand(stage)
    await stage.rounds()
    assert stage.runtime.calls == []


async def test_a_demand_is_kept_for_the_orchestrator_that_acts_and_until_a_start_has_begun(stage: Any) -> None:
    stage.change(lifecycle=Lifecycle.ON_DEMAND)
    with pytest.raises(TransientError, match="not begun"):
        await demand(stage)
    stage.lease.held = False
    with pytest.raises(TransientError, match="another orchestrator"):
        await demand(stage)


async def test_a_successor_keeps_a_running_on_demand_model_until_its_idle_time_is_over(stage: Any) -> None:
    await on_demand(stage)
    await demand(stage)
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    stage.judge(Verdict.HEALTHY, running=0, waiting=0, work_total=5)
    verdicts = stage.verdicts.items
    await stage.end()
    successor = type(stage)(stage.runtime)
    successor.models.items, successor.verdicts.items = stage.models.items, verdicts
    successor.begin()
    await asyncio.sleep(55)
    assert successor.state() == ReplicaState.STARTED
    await successor.until(lambda: not stage.runtime.replicas)
    await successor.end()


async def test_a_manual_model_is_started_once(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"lifecycle": Lifecycle.MANUAL})
    await stage.started()
    stage.runtime.crash(stage.replica_id, 1)
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    await asyncio.sleep(300)
    document = stage.store.documents[stage.replica_id]
    assert (document.state, document.next_attempt_at) == (ReplicaState.FAILED, None)
    assert "manual" in document.reason
    assert stage.subjects().count("container.failed") == 1
    stage.change(restart_generation=1)
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    del stage.runtime.replicas[stage.replica_id]
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    await asyncio.sleep(300)
    assert stage.store.documents[stage.replica_id].diagnosis.code == "not_restarted"
    assert stage.subjects().count("container.created") == 2


async def test_after_a_host_restart_a_manual_model_stays_down(stage: Any) -> None:
    stage.model = stage.model.model_copy(update={"lifecycle": Lifecycle.MANUAL})
    await stage.started()
    await stage.end()
    stage.runtime.crash(stage.replica_id, 255)
    successor = type(stage)(stage.runtime)
    successor.models.items = stage.models.items
    successor.begin()
    await successor.until(lambda: successor.state() == ReplicaState.FAILED)
    await asyncio.sleep(300)
    assert successor.subjects() == ["container.failed"]
    await successor.end()


async def test_a_change_without_room_for_two_stops_first_and_says_so(stage: Any) -> None:
    await serving(stage)
    stage.change(restart_generation=1)
    await stage.until(lambda: "container.stopped" in stage.subjects())
    stopped = next(event for event in stage.store.events if event.SUBJECT == "container.stopped")
    assert "stopped before its successor starts" in stopped.reason
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert stage.state(1) is None


async def test_with_room_the_successor_serves_before_the_old_replica_goes(stage: Any) -> None:
    stage.room()
    await serving(stage)
    old = stage.store.documents[stage.replica_id].spec_hash
    stage.change(restart_generation=1)
    await stage.until(lambda: stage.state(1) == ReplicaState.STARTED)
    successor = replica_id(stage.model.id, 1)
    stage.judge(Verdict.LOADING, successor)
    await asyncio.sleep(120)
    assert stage.store.documents[stage.replica_id].spec_hash == old
    assert stage.state() == ReplicaState.STARTED
    stage.judge(Verdict.HEALTHY, successor)
    await stage.until(lambda: stage.state() is None)
    assert list(stage.runtime.replicas) == [successor]
    await asyncio.sleep(60)
    assert list(stage.runtime.replicas) == [successor]


async def test_a_rolling_change_waits_for_the_estimate_of_what_it_would_start(stage: Any) -> None:
    stage.room()
    await serving(stage)
    stage.change(llamacpp=LlamaCppOptions(context_size=4096))
    await stage.until(lambda: stage.state(1) == ReplicaState.STARTED)
    assert "container.stopped" not in stage.subjects()


async def test_a_successor_that_fails_leaves_the_old_replica_serving(stage: Any) -> None:
    stage.room()
    await serving(stage)
    stage.runtime.default_mode = "crash"
    stage.change(restart_generation=1)
    await stage.until(lambda: stage.subjects().count("container.failed") == 3)
    assert (stage.state(), stage.state(1)) == (ReplicaState.STARTED, ReplicaState.FAILED)
    stage.change(restart_generation=0)
    await stage.until(lambda: stage.state(1) is None)
    assert stage.state() == ReplicaState.STARTED
    assert "container.stopped" not in stage.subjects()
