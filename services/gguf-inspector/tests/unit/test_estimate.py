"""Estimates of models by their real shapes. The numbers were measured on real engines (docs/benchmarks.md)."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.estimates import DeviceV1, EstimateRequestV1, HostV1, RecommendRequestV1
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.estimate.architecture import Facts, facts_of
from cortex_gguf_inspector.estimate.estimator import Estimator
from cortex_gguf_inspector.estimate.fit_params import fit_arguments, parse_fit_params
from cortex_gguf_inspector.estimate.llamacpp import MIB, Setup, estimate, setup
from cortex_gguf_inspector.estimate.overrides import parse_overrides
from cortex_gguf_inspector.estimate.placement import place
from cortex_gguf_inspector.estimate.recommend import recommend
from cortex_gguf_inspector.estimate.search import best_ngl, fits, largest_context, propose_split, with_options
from cortex_gguf_inspector.estimate.vllm import estimate_vllm, vllm_facts
from cortex_testing.gguf import fixtures
from cortex_testing.gguf.writer import GgufBuilder

GIB = 1 << 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sparse files: gigabytes apparent, little on disk."""
    root = tmp_path_factory.mktemp("models")
    fixtures.gpt_oss_120b(vocabulary=201_088).write(root / "gpt-oss.gguf")
    fixtures.gemma3(vocabulary=2_048).write(root / "gemma3.gguf")
    fixtures.deepseek2().write(root / "deepseek2.gguf")
    fixtures.jamba().write(root / "jamba.gguf")
    fixtures.llama(layers=8, vocabulary=4_096, width=256).write(root / "llama.gguf")
    return root


def load(path: Path) -> Facts:
    return facts_of([read(path)])


def read(path: Path):
    from cortex_gguf_inspector.reader import read_header  # noqa: PLC0415 - keeps the descriptor's life in one place
    from cortex_gguf_inspector.window import FileSource  # noqa: PLC0415

    with path.open("rb") as file:
        return read_header(FileSource(file.fileno()))


@pytest.mark.parametrize(
    ("model", "options", "kv", "compute"),
    [
        ("gpt-oss", {}, 315.0, 101.14),
        ("gpt-oss", {"flash_attention": False}, 315.0, 1078.39),
        ("gpt-oss", {"context_size": 131072}, 4635.0, 221.14),
        ("gpt-oss", {"parallel_slots": 4}, 396.0, 95.14),
        ("gpt-oss", {"parallel_slots": 4, "kv_unified": True}, 324.0, 101.39),
        ("gpt-oss", {"ubatch_size": 2048, "batch_size": 2048}, 369.0, 410.58),
        ("gpt-oss", {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 167.34, 101.21),
        ("gemma3", {}, 54.0, 58.27),
        ("deepseek2", {}, 243.0, 97.01),
        ("deepseek2", {"flash_attention": False}, 243.0, 330.27),
        ("jamba", {}, 17.04, 38.03),
        ("jamba", {"parallel_slots": 4, "context_size": 32768}, 68.16, 38.03),
    ],
)
def test_memory_is_what_build_10434_took(
    models: Path, model: str, options: dict[str, object], kv: float, compute: float
):
    chosen = LlamaCppOptions.model_validate({"context_size": 8192, "parallel_slots": 1, **options})
    found = estimate(replace(setup(load(models / f"{model}.gguf"), chosen), build=10434))
    (host,) = found.devices
    assert host.kv / MIB == pytest.approx(kv, abs=0.011)
    assert host.compute / MIB == pytest.approx(compute, rel=0.005)


def test_a_newer_build_takes_one_more_input(models: Path):
    options = LlamaCppOptions(context_size=8192, parallel_slots=1)
    (host,) = estimate(replace(setup(load(models / "gpt-oss.gguf"), options), build=11434)).devices
    assert host.compute / MIB == pytest.approx(104.40, abs=0.01)


def test_weights_are_the_files_and_a_tied_embedding_counts_twice_on_a_device(models: Path):
    facts = load(models / "gemma3.gguf")
    assert facts.tied
    options = LlamaCppOptions(context_size=2048, parallel_slots=1)
    (host,) = estimate(setup(facts, options, ("-nr",))).devices
    assert host.weights == facts.weights
    device = DeviceV1(name="GPU0", memory_free=8 * GIB)
    both = estimate(setup(facts, options, (), [device])).devices
    assert sum(memory.weights for memory in both) == facts.weights + facts.input_tensors["token_embd.weight"].size


def test_layers_are_placed_as_the_engine_does():
    homes = place(30, 10, (3, 1)).homes
    assert homes == (0,) * 21 + (1,) * 8 + (2,) * 2
    assert place(30, 0, (1, 1)).homes == (0,) * 31
    assert place(30, 999, (1,)).homes == (1,) * 31
    assert set(place(30, 31, (1, 1), main=1).homes) == {2}
    assert set(place(30, 31, (1,), caches_on_cpu=True).caches) == {0}


def test_experts_move_to_the_cpu(models: Path):
    facts = load(models / "gpt-oss.gguf")
    device = DeviceV1(name="GPU0", memory_free=80 * GIB)
    options = LlamaCppOptions(context_size=8192, parallel_slots=1, ngl=37)
    whole = estimate(setup(facts, options, (), [device])).devices
    half = estimate(setup(facts, options, ("--n-cpu-moe", "18"), [device])).devices
    assert sum(memory.weights for memory in half) == sum(memory.weights for memory in whole)
    assert half[1].weights < 0.55 * whole[1].weights


def test_overrides_are_read_and_patterns_are_not_guessed():
    found = parse_overrides(["-nkvo", "--n-cpu-moe=7", "--swa-full", "-ot", "exps=CPU", "--seed", "1"])
    assert (found.caches_on_cpu, found.experts_on_cpu, found.swa_full) == (True, 7, True)
    assert found.not_understood == ("-ot exps=CPU",)


@pytest.mark.parametrize(
    "architecture", ["deepseek32", "glm-dsa", "minimax-m3", "rwkv7", "lfm2", "kimi-linear", "nobody"]
)
def test_an_unknown_architecture_is_a_lower_bound_and_says_why(tmp_path: Path, architecture: str):
    gguf = GgufBuilder(architecture)
    gguf.own(block_count=2, context_length=4096, embedding_length=64, attention__head_count=4)
    gguf.tensor("token_embd.weight", (64, 512)).tensor("blk.0.attn_q.weight", (64, 64))
    gguf.tensor("blk.1.attn_q.weight", (64, 64)).write(tmp_path / "x.gguf")
    result = Estimator(tmp_path).estimate(EstimateRequestV1(path="x.gguf", host=HostV1(memory_free=64 * GIB)))
    assert not result.known
    assert result.reason
    assert result.fits is None
    assert result.largest_context is None
    assert result.total > 0


@pytest.mark.parametrize(
    "lie", [{"block_count": 10**6}, {"expert_used_count": 10**6}, {"attention__head_count": 2**31}, {"block_count": 3}]
)
def test_a_file_that_lies_about_its_size_costs_nothing(tmp_path: Path, lie: dict[str, int]):
    gguf = GgufBuilder("llama")
    values = {"block_count": 2, "context_length": 4096, "embedding_length": 64, "attention__head_count": 4}
    gguf.own(**{**values, **lie})
    for layer in range(2):
        gguf.tensor(f"blk.{layer}.attn_q.weight", (64, 64))
    gguf.write(tmp_path / "x.gguf")
    assert not Estimator(tmp_path).estimate(EstimateRequestV1(path="x.gguf")).known


@pytest.fixture(scope="module")
def llama(models: Path) -> Facts:
    return load(models / "llama.gguf")


memory = st.integers(min_value=0, max_value=64 * MIB)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    free=st.lists(memory, max_size=3), host=memory, slots=st.integers(1, 3), flash=st.booleans(), ngl=st.integers(0, 9)
)
def test_nothing_is_proposed_that_does_not_fit(
    llama: Facts, free: list[int], host: int, slots: int, flash: bool, ngl: int
):
    devices = tuple(DeviceV1(name=f"d{i}", memory_free=size, driver_context=False) for i, size in enumerate(free))
    options = LlamaCppOptions(ngl=ngl, parallel_slots=slots, flash_attention=flash, cache_ram_mib=0)
    case = Setup(llama, options, devices, HostV1(memory_free=host, cpu_count=4))
    context = largest_context(case)
    if context:
        assert fits(estimate(with_options(case, context_size=context)))
    layers = best_ngl(case)
    if layers is not None:
        assert fits(estimate(with_options(case, ngl=layers)))
    split = propose_split(case)
    if split is not None:
        assert fits(estimate(with_options(case, tensor_split=split)))
    advice = recommend(case, 2048)
    if advice.fits:
        assert fits(estimate(replace(case, options=advice.options)))
    assert all(item.reason for item in advice.settings)


@pytest.mark.slow
def test_more_context_never_takes_less(models: Path):
    for name in ("gpt-oss", "gemma3", "deepseek2", "jamba"):
        facts = load(models / f"{name}.gguf")
        sizes = [
            estimate(setup(facts, LlamaCppOptions(context_size=size, parallel_slots=1))).total
            for size in (1024, 4096, 8192, 16384, 32768)
        ]
        assert all(low <= high for low, high in itertools.pairwise(sizes))


@pytest.mark.slow
def test_a_recommendation_for_two_gpus_gives_up_layers_only_when_it_must(models: Path):
    gpus = tuple(DeviceV1(name=f"GPU{i}", memory_free=size) for i, size in enumerate((40 * GIB, 40 * GIB)))
    host = HostV1(memory_free=64 * GIB, cpu_count=16)
    found = Estimator(models).recommend(RecommendRequestV1(path="gpt-oss.gguf", devices=gpus, host=host))
    assert found.llamacpp is not None
    assert found.llamacpp.ngl == 37
    assert found.estimate is not None
    assert found.estimate.fits
    small = tuple(device.model_copy(update={"memory_free": 20 * GIB}) for device in gpus)
    found = Estimator(models).recommend(RecommendRequestV1(path="gpt-oss.gguf", devices=small, host=host))
    assert found.llamacpp is not None
    assert 0 < (found.llamacpp.ngl or 0) < 37
    assert found.estimate is not None
    assert found.estimate.fits


def test_a_path_out_of_the_root_is_refused(models: Path):
    with pytest.raises(GgufError) as caught:
        Estimator(models).estimate(EstimateRequestV1(path="../x.gguf"))
    assert caught.value.code == "path_outside_models_root"


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def test_vllm_keeps_what_is_left_for_the_cache():
    gpu = DeviceV1(name="GPU0", memory_free=80 * GIB, memory_total=80 * GIB)
    found = estimate_vllm(vllm_facts(CONFIG, 16 * GIB), VllmOptions(max_model_len=8192), [gpu])
    assert found.kv_bytes_per_token == 131_072
    assert found.cache_tokens is not None
    assert 380_000 < found.cache_tokens < 460_000
    assert found.max_concurrency == pytest.approx(found.cache_tokens / 8192, rel=0.001)
    two = estimate_vllm(vllm_facts(CONFIG, 16 * GIB), VllmOptions(tp_size=2), [gpu, gpu])
    assert two.kv_bytes_per_token == 65_536


def test_vllm_says_unknown_for_an_unusual_cache():
    odd = {**CONFIG, "layer_types": ["linear_attention", "full_attention"] * 16}
    gpu = DeviceV1(name="GPU0", memory_free=80 * GIB)
    found = estimate_vllm(vllm_facts(odd, GIB), VllmOptions(), [gpu])
    assert found.unknown is not None
    assert found.max_concurrency is None
    assert vllm_facts({"hidden_size": "x"}, 0).unknown is not None


def test_the_tools_lines_are_read():
    text = "noise\nCUDA0 100 20 3\nHost 28 180 109 \n"
    host, gpu = parse_fit_params(text)
    assert (host.device, host.weights, host.kv, host.compute) == ("CPU", 28 * MIB, 180 * MIB, 109 * MIB)
    assert (gpu.device, gpu.total) == ("CUDA0", 123 * MIB)
    assert fit_arguments("/m.gguf", LlamaCppOptions(ngl=0))[-2:] == ["-fitp", "on"]
    assert "-ngl" in fit_arguments("/m.gguf", LlamaCppOptions(ngl=0))
    assert parse_fit_params(io.StringIO("").read()) == ()
