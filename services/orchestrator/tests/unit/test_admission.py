"""Models and memory: who is placed where, who is refused and told why, who gives way."""

import asyncio
from typing import Any

from cortex_contracts.enums import Lifecycle, ReplicaState, Verdict
from cortex_contracts.estimates import ProposalV1
from cortex_orchestrator.domain.placement import GIB, Gpu, Machine
from cortex_testing.virtual_time import LoopClock


def rejections(stage: Any) -> list[Any]:
    return [event for event in stage.store.events if event.SUBJECT == "placement.rejected"]


async def test_a_model_that_does_not_fit_is_refused_once_with_reasons_and_started_when_it_does(stage: Any) -> None:
    stage.estimator.host = {"m.gguf": 60 * GIB}
    stage.estimator.proposals = (ProposalV1(setting="context_size", value=4096, reason="it fits"),)
    stage.change()
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    await asyncio.sleep(60)
    (rejected,) = rejections(stage)
    assert "60.0 GiB of host memory and 50.0 GiB" in rejected.reason
    assert rejected.asked_bytes == 60 * GIB
    assert rejected.would_fit == ("context_size 4096: it fits",)
    document = stage.store.documents[stage.replica_id]
    assert (document.diagnosis.code, document.reason) == ("no_room", rejected.reason)
    assert "context_size 4096" in document.diagnosis.fix
    assert stage.runtime.calls == []
    stage.probe.machine = Machine(100 * GIB, 70 * GIB)
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert stage.memory.promised == {"cpu": 60 * GIB}


async def test_without_an_estimate_a_model_starts_with_a_warning(stage: Any) -> None:
    await stage.started()
    assert "not known" in stage.store.documents[stage.replica_id].warnings[0]


async def test_two_models_are_not_promised_the_same_memory(stage: Any) -> None:
    other = stage.model.model_copy(update={"id": "m2", "local_path": "other.gguf"})
    stage.estimator.host = {"m.gguf": 30 * GIB, "other.gguf": 30 * GIB}
    stage.models.items = {stage.model.id: stage.model, "m2": other}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.STARTED and rejections(stage))
    assert rejections(stage)[0].model_id == "m2"
    stage.models.items = {"m2": other}
    await stage.until(lambda: "m2-0" in stage.runtime.replicas)


async def test_a_gpu_is_chosen_and_kept_over_a_restart_of_engine_and_orchestrator(stage: Any) -> None:
    gpus = (Gpu(0, "GPU-a", 80 * GIB, 40 * GIB), Gpu(1, "GPU-b", 80 * GIB, 70 * GIB))
    stage.probe.machine = Machine(100 * GIB, 50 * GIB, gpus)
    stage.estimator.host, stage.estimator.gpu = {"m.gguf": GIB}, {"m.gguf": 30 * GIB}
    await stage.started()
    assert stage.store.documents[stage.replica_id].gpus == (1,)
    assert stage.memory.promised == {"cpu": GIB, "GPU-b": 30 * GIB}
    spec_hash = stage.store.documents[stage.replica_id].spec_hash
    stage.runtime.crash(stage.replica_id, 1)
    stage.probe.machine = Machine(100 * GIB, 50 * GIB, (Gpu(0, "GPU-a", 80 * GIB, 80 * GIB), gpus[1]))
    await stage.until(lambda: stage.store.documents[stage.replica_id].restarts == 1 and stage.state() == "started")
    assert stage.store.documents[stage.replica_id].spec_hash == spec_hash
    await stage.end()
    successor = type(stage)(stage.runtime)
    successor.models.items = stage.models.items
    successor.probe.machine, successor.estimator = stage.probe.machine, stage.estimator
    successor.begin()
    await successor.until(lambda: successor.state() == ReplicaState.STARTED)
    await asyncio.sleep(60)
    assert successor.subjects() == ["container.adopted"]
    await successor.end()


async def test_what_the_engine_reports_replaces_the_estimate(stage: Any) -> None:
    stage.estimator.host = {"m.gguf": 60 * GIB // 2}
    await stage.started()
    stage.runtime.lines = (
        "load_tensors:   CPU_Mapped model buffer size =  1024.00 MiB",
        "sched_reserve:        CPU compute buffer size =    24.00 MiB",
    )
    stage.judge(Verdict.HEALTHY)
    await stage.until(lambda: stage.memory.promised == {"cpu": 1048 << 20})


async def awake(stage: Any, name: str, size: int, **load: Any) -> Any:
    """An on-demand model that runs."""
    model = stage.model.model_copy(
        update={"id": name, "local_path": name, "lifecycle": Lifecycle.ON_DEMAND, "idle_ttl_s": 3600}
    )
    stage.estimator.host[name] = size * GIB
    stage.models.items = {**stage.models.items, name: model}
    await stage.waker.demanded(name, LoopClock().now())
    await stage.until(lambda: f"{name}-0" in stage.store.documents and stage.state_of(f"{name}-0") == "started")
    stage.judge(Verdict.HEALTHY, f"{name}-0", **{"running": 0, "waiting": 0, "work_total": 5, **load})
    return model


async def test_an_idle_model_on_demand_gives_way_to_one_that_is_demanded(stage: Any) -> None:
    stage.begin()
    await awake(stage, "a", 20)
    await awake(stage, "b", 20)
    await asyncio.sleep(30)
    await awake(stage, "c", 20)
    stopped = [event for event in stage.store.events if event.SUBJECT == "container.stopped"]
    assert [event.model_id for event in stopped] == ["a"]
    assert "gives way" in stopped[0].reason
    assert rejections(stage) == []
    await asyncio.sleep(60)
    assert set(stage.runtime.replicas) == {"b-0", "c-0"}


async def test_a_model_with_requests_in_flight_never_gives_way(stage: Any) -> None:
    stage.begin()
    await awake(stage, "a", 40, running=1)
    await asyncio.sleep(30)
    late = stage.model.model_copy(update={"id": "z", "local_path": "z"})
    stage.estimator.host["z"] = 20 * GIB
    stage.models.items = {**stage.models.items, "z": late}
    await stage.until(lambda: rejections(stage))
    assert "a-0" in stage.runtime.replicas
    stage.judge(Verdict.HEALTHY, "a-0", running=0, waiting=0, work_total=6)
    await stage.until(lambda: "z-0" in stage.runtime.replicas)
    assert "a-0" not in stage.runtime.replicas


async def test_a_judgement_changes_nothing_and_names_who_would_give_way(stage: Any) -> None:
    stage.begin()
    model = await awake(stage, "a", 40)
    await asyncio.sleep(30)
    wish = model.model_copy(update={"id": "new", "local_path": "new"})
    assert stage.admission.judge(wish, None).fits is None
    estimate = await stage.estimator.estimate(stage.estimator.requests[0])
    judged = stage.admission.judge(wish, estimate)
    assert (judged.fits, judged.evicts) == (True, ("a",))
    small = estimate.model_copy(update={"devices": tuple(d.model_copy(update={"total": 1}) for d in estimate.devices)})
    assert stage.admission.judge(wish, small).evicts == ()
    await asyncio.sleep(30)
    assert "a-0" in stage.runtime.replicas
