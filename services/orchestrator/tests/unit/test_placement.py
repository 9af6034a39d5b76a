"""Where replicas fit, what gives way, and what engines' logs tell of their memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import EstimateResultV1, MemoryV1
from cortex_orchestrator.domain.asks import Reported, ask_of, corrected, reported, request_for
from cortex_orchestrator.domain.eviction import Candidate, plan_eviction
from cortex_orchestrator.domain.placement import (
    GIB,
    Ask,
    Gpu,
    Machine,
    Placed,
    Promise,
    Refused,
    Wish,
    gpu_room,
    host_room,
    place,
)

AUTO = Wish()


def machine(*gpus: int, host: int = 64, total: int = 80) -> Machine:
    """GPUs with so many GiB free, each of `total`."""
    return Machine(
        128 * GIB, host * GIB, tuple(Gpu(i, f"GPU-{i}", total * GIB, free * GIB) for i, free in enumerate(gpus))
    )


def gpu_ask(gpu: float, host: float = 1, **changes: object) -> Ask:
    return Ask(host=int(host * GIB), gpu=int(gpu * GIB), layers=20, wants_gpu=True, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "there", "wish", "gpus"),
    [
        (Ask(host=GIB), machine(), AUTO, ()),
        (Ask(host=GIB), machine(40), AUTO, ()),
        (gpu_ask(30), machine(40, 50), AUTO, (1,)),
        (gpu_ask(30), machine(40, 50), Wish(preferred=(0,)), (0,)),
        (gpu_ask(30), machine(20, 50), Wish(preferred=(0,)), (1,)),
        (gpu_ask(30), machine(40, 50), Wish(indices=(0,)), (0,)),
        (gpu_ask(70), machine(40, 50, 10), AUTO, (0, 1)),
        (gpu_ask(70, proportions=(1.0, 1.0)), machine(40, 50, 10), AUTO, (0, 1)),
        (Ask(wants_gpu=True, share=0.9, gpu_count=2), machine(80, 10, 75), AUTO, (0, 2)),
        (Ask(wants_gpu=True, known=False, note="x"), machine(1, 80), AUTO, (0, 1)),
    ],
)
def test_a_place_is_found(ask: Ask, there: Machine, wish: Wish, gpus: tuple[int, ...]) -> None:
    found = place(ask, there, (), wish)
    assert isinstance(found, Placed), found
    assert found.gpus == gpus
    assert bool(found.warnings) is not ask.known


@pytest.mark.parametrize(
    ("ask", "there", "wish", "words", "would_fit"),
    [
        (Ask(host=65 * GIB), machine(), AUTO, "65.0 GiB of host memory", ""),
        (Ask(host=65 * GIB, known=False), machine(), AUTO, "65.0 GiB", ""),
        (gpu_ask(60), machine(40), AUTO, "60.0 GiB of GPU memory", "ngl 13 (of 20 layers)"),
        (gpu_ask(60), machine(40, 70), Wish(indices=(0,)), "no choice", "placement auto with tensor_split 40,70"),
        (gpu_ask(10), machine(40), Wish(indices=(3,)), "no GPU 3 on this node (there: 0)", ""),
        (Ask(wants_gpu=True, share=0.9, gpu_count=2), machine(80), AUTO, "needs 2 GPUs and there are 1", ""),
        (Ask(wants_gpu=True, share=0.9, gpu_count=1), machine(60), AUTO, "90% of each GPU", ""),
        (Ask(wants_gpu=True, share=0.5, gpu_count=1, gpu=50 * GIB), machine(60), AUTO, "50%", ""),
        (gpu_ask(60, proposals=("context_size 4096",)), machine(1), AUTO, "60.0 GiB", "context_size 4096"),
    ],
)
def test_a_refusal_says_what_was_tried_and_what_would_fit(
    ask: Ask, there: Machine, wish: Wish, words: str, would_fit: str
) -> None:
    found = place(ask, there, (), wish)
    assert isinstance(found, Refused), found
    assert words in found.reason
    assert would_fit in " ".join(found.would_fit)


def test_an_engine_that_fits_itself_gets_what_there_is() -> None:
    found = place(gpu_ask(60, elastic=True), machine(40), (), AUTO)
    assert isinstance(found, Placed)
    assert found.promise.gpus == {0: 40 * GIB}
    assert found.promise.host == 1 * GIB + 60 * GIB - 13 * 3 * GIB
    assert "13 of 20 layers" in found.warnings[0]
    assert isinstance(place(gpu_ask(600, elastic=True), machine(40), (), AUTO), Refused)


def test_gpus_that_nobody_can_see_are_used_on_the_models_word() -> None:
    found = place(gpu_ask(10), machine(), (), Wish(indices=(1,)))
    assert isinstance(found, Placed)
    assert (found.gpus, "NVML" in found.warnings[0]) == ((1,), True)


def test_promises_that_are_not_taken_yet_count_and_pages_of_files_do_too() -> None:
    there = Machine(100, 90, host_reserve=10)
    assert host_room(there, [Promise(30)]) == 50
    assert host_room(there, [Promise(30, settled=True)]) == 60
    assert host_room(there, [Promise(30, mapped=25, settled=True)]) == 55
    assert gpu_room(machine(80), [Promise(gpus={0: 30 * GIB})]) == {0: 50 * GIB}
    assert gpu_room(machine(40), [Promise(gpus={0: 30 * GIB}, settled=True)]) == {0: 40 * GIB}


sizes = st.integers(0, 100).map(lambda number: number * GIB)
machines = st.builds(
    Machine,
    host_total=st.just(200 * GIB),
    host_free=sizes,
    gpus=st.lists(st.tuples(sizes, sizes), max_size=4).map(
        lambda rows: tuple(Gpu(i, f"u{i}", max(row), min(row)) for i, row in enumerate(rows))
    ),
    host_reserve=st.sampled_from([0, GIB]),
)
promise_lists = st.lists(
    st.builds(
        Promise, host=sizes, gpus=st.dictionaries(st.integers(0, 3), sizes), mapped=st.just(0), settled=st.booleans()
    ),
    max_size=4,
)
asks = st.builds(
    Ask,
    host=sizes,
    gpu=sizes,
    known=st.booleans(),
    layers=st.integers(0, 40),
    elastic=st.booleans(),
    wants_gpu=st.booleans(),
    share=st.sampled_from([None, 0.5, 0.9]),
    gpu_count=st.sampled_from([None, 1, 2]),
    proportions=st.sampled_from([(), (1.0,), (3.0, 1.0), (1.0, 0.0)]),
)
wishes = st.builds(
    Wish,
    indices=st.one_of(st.none(), st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple)),
    preferred=st.lists(st.integers(0, 4), max_size=2, unique=True).map(tuple),
)


@given(asks, machines, promise_lists, wishes)
def test_no_more_is_promised_than_there_is_and_every_answer_explains(
    ask: Ask, there: Machine, promises: list[Promise], wish: Wish
) -> None:
    found = place(ask, there, promises, wish)
    assert place(ask, there, promises, wish) == found
    assert found.reason
    if isinstance(found, Refused):
        return
    assert found.promise.host <= host_room(there, promises)
    rooms = gpu_room(there, promises)
    assert all(size <= rooms[index] for index, size in found.promise.gpus.items())
    assert set(found.promise.gpus) <= set(found.gpus)
    assert not rooms or set(found.gpus) <= set(rooms)
    if wish.indices and rooms:
        assert found.gpus == wish.indices
    if ask.known and rooms and found.gpus and ask.share is None:
        assert found.promise.host + sum(found.promise.gpus.values()) >= ask.host + ask.gpu


def candidate(name: str, load: float | None = None, demands: int = 0, *, busy: bool = False) -> Candidate:
    return Candidate(ModelId(name), (ReplicaId(f"{name}-0"),), load, demands, busy)


def test_the_cheapest_idle_models_give_way_and_no_more_than_needed() -> None:
    there = machine(0, total=80)
    promises = {
        ReplicaId(f"{name}-0"): Promise(gpus={0: size * GIB}, settled=True)
        for name, size in (("a", 10), ("b", 40), ("c", 30))
    }
    models = [candidate("a", 5), candidate("b", 60), candidate("c", 60, 9)]
    assert plan_eviction(gpu_ask(9), there, promises, models, AUTO) == ("a",)
    assert plan_eviction(gpu_ask(35), there, promises, models, AUTO) == ("b",)
    assert plan_eviction(gpu_ask(70), there, promises, models, AUTO) == ("b", "c")
    assert plan_eviction(gpu_ask(100), there, promises, models, AUTO) == ()
    assert plan_eviction(gpu_ask(9), there, promises, [candidate("a", 5, busy=True)], AUTO) == ()
    assert plan_eviction(Ask(), there, promises, models, AUTO) == ()


names = st.sampled_from([f"m{number}" for number in range(6)])


@given(
    asks,
    machines,
    st.dictionaries(
        names, st.tuples(promise_lists.filter(bool), st.floats(0.1, 500), st.integers(0, 9), st.booleans())
    ),
    wishes,
)
@pytest.mark.slow
def test_evictions_make_room_spare_the_busy_and_none_is_needless(
    ask: Ask,
    there: Machine,
    running: dict[str, tuple[list[Promise], float, int, bool]],
    wish: Wish,
) -> None:
    promises = {ReplicaId(f"{name}-0"): row[0][0] for name, row in running.items()}
    models = [candidate(name, row[1], row[2], busy=row[3]) for name, row in running.items()]
    chosen = plan_eviction(ask, there, promises, models, wish)
    assert plan_eviction(ask, there, promises, list(reversed(models)), wish) == chosen
    assert not {one.model_id for one in models if one.at_work} & set(chosen)
    for spared in chosen:
        others = [one for one in models if one.model_id in chosen and one.model_id != spared]
        kept = plan_eviction(ask, there, promises, others, wish)
        assert kept == () or set(kept) < set(chosen)
        assert isinstance(place(ask, there, tuple(promises.values()), wish), Refused)


def llama(**options: object) -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId("m"),
        name="M",
        served_model_name="m",
        engine_type=EngineType.LLAMACPP,
        local_path="m.gguf",
        llamacpp=LlamaCppOptions.model_validate(options),
        aggregateversion=1,
    )


def estimate(*devices: MemoryV1, known: bool = True) -> EstimateResultV1:
    return EstimateResultV1(
        path="m.gguf", engine_type=EngineType.LLAMACPP, known=known, reason="" if known else "odd", devices=devices
    )


CPU = MemoryV1(device="CPU", weights=100, kv=10, compute=5, output=1, other=50, total=166, repacked=40)
GPU = MemoryV1(device="GPU", weights=500, kv=40, compute=20, other=30, total=590, layers=31)


def test_an_estimate_becomes_an_ask() -> None:
    ask = ask_of(llama(tensor_split="3,1"), estimate(CPU, GPU), "", has_gpus=True)
    assert (ask.host, ask.mapped, ask.gpu, ask.layers, ask.elastic) == (166, 60, 590, 31, True)
    assert ask.proportions == (3, 1)
    assert not ask_of(llama(ngl=0), estimate(CPU), "", has_gpus=True).wants_gpu
    assert ask_of(llama(no_mmap=True), estimate(CPU), "", has_gpus=False).mapped == 0
    missing = ask_of(llama(), None, "nobody answers", has_gpus=False)
    assert (missing.known, missing.note, missing.host) == (False, "nobody answers", 0)
    request = request_for(llama(tensor_split="3,1"), has_gpus=True)
    assert request is not None
    assert request.llamacpp is not None
    assert (request.llamacpp.tensor_split, len(request.devices)) == (None, 1)


def test_a_vllm_model_takes_its_share_of_each_gpu() -> None:
    model = llama().model_copy(update={"engine_type": EngineType.VLLM, "vllm": VllmOptions(tp_size=2)})
    ask = ask_of(model, None, "online", has_gpus=True)
    assert (ask.share, ask.gpu_count, ask.known) == (0.9, 2, True)
    assert ask_of(model, None, "online", has_gpus=False).known is False


LOG = """
0.00.1 I load_tensors:   CPU_Mapped model buffer size =   999.00 MiB
0.00.1 I common_params_fit_impl: fitting params to free memory took 0.1 seconds
0.00.2 I load_tensors:   CPU_Mapped model buffer size =    92.00 MiB
0.00.2 I load_tensors:        CUDA0 model buffer size =  1000.00 MiB
0.00.2 I load_tensors:        CUDA1 model buffer size =   500.00 MiB
0.00.2 I llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB
0.00.2 I llama_context:  CUDA_Host  output buffer size =     0.50 MiB
0.00.2 I sched_reserve:      CUDA0 compute buffer size =    15.50 MiB
"""


def test_what_the_engine_reports_corrects_the_estimate() -> None:
    mib = 1 << 20
    found = reported(EngineType.LLAMACPP, LOG.splitlines())
    assert found == Reported(int(92.5 * mib), 92 * mib, int(1560.5 * mib))
    ask = corrected(Ask(host=1, gpu=1, known=False, note="x"), estimate(CPU, GPU), found)
    assert (ask.host, ask.gpu, ask.known) == (found.host + 50, found.gpu + 30, True)
    assert reported(EngineType.LLAMACPP, ["nothing of it"]) is None
    lines = ["Model loading took 1.5 GiB memory and 3 s", "Available KV cache memory: 2.5 GiB"]
    assert reported(EngineType.VLLM, lines) == Reported(4 * GIB, 0, 4 * GIB)
