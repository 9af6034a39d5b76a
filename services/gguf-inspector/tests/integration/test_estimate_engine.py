"""Estimates against what a real llama-server says. The long table is made by tests/bench/gguf_estimates.py."""

import os
from pathlib import Path, PurePosixPath

import pytest

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import DeviceV1
from cortex_gguf_inspector.estimate.architecture import facts_of
from cortex_gguf_inspector.estimate.fit_params import find_fit_params
from cortex_gguf_inspector.estimate.llamacpp import estimate, setup
from cortex_gguf_inspector.inspect import read_set
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_testing.llama_memory import MIB, measure, rpc_devices

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


def facts(path: Path):
    return facts_of(read_set(ModelsRoot(Path("/")), PurePosixPath(str(path.resolve())[1:]), Limits()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_size": 2048, "parallel_slots": 1}, "-c 2048 -np 1 -fa on"),
        ({"context_size": 2048, "parallel_slots": 1, "flash_attention": False}, "-c 2048 -np 1 -fa off"),
        (
            {"context_size": 4096, "parallel_slots": 1, "cache_type_k": "q8_0", "cache_type_v": "q4_0"},
            "-c 4096 -np 1 -fa on -ctk q8_0 -ctv q4_0",
        ),
        ({"context_size": 4096, "parallel_slots": 3}, "-c 4096 -np 3 -fa on"),
        ({"context_size": 4096, "parallel_slots": 2, "kv_unified": True}, "-c 4096 -np 2 -kvu -fa on"),
        ({"context_size": 2048, "parallel_slots": 1, "ubatch_size": 128}, "-c 2048 -np 1 -fa on -ub 128"),
    ],
)
def test_caches_are_exact_and_compute_is_close(
    options: dict[str, object], words: str, llama_server_binary: Path, smollm2_gguf: Path
):
    measured = measure(llama_server_binary, smollm2_gguf, [*words.split(), "-cram", "0", "-nr"], load=False)
    chosen = LlamaCppOptions.model_validate(options)
    (host,) = estimate(setup(facts(smollm2_gguf), chosen, ("-nr",))).devices
    assert host.kv / MIB == pytest.approx(measured.cache_total, abs=0.0051)
    assert host.compute / MIB >= measured.of("compute")["CPU"] * 0.95
    assert host.compute / MIB <= measured.of("compute")["CPU"] * 1.15  # newer builds take a little more than this one
    assert host.weights / MIB == pytest.approx(measured.weights["Host"], abs=1.0)


def test_layers_lie_where_the_engine_puts_them(llama_server_binary: Path, smollm2_gguf: Path):
    folder = llama_server_binary.parent
    if not (folder / "ggml-rpc-server").exists():
        pytest.skip("this llama-server brings no ggml-rpc-server")
    with rpc_devices(folder, 2) as addresses:
        words = f"-c 2048 -np 1 -fa on -cram 0 -ngl 10 -ts 3,1 --rpc {','.join(addresses)}".split()
        measured = measure(llama_server_binary, smollm2_gguf, words, load=True)
    devices = [DeviceV1(name=name, memory_free=64 << 30, driver_context=False) for name in ("first", "second")]
    options = LlamaCppOptions(context_size=2048, parallel_slots=1, ngl=10, tensor_split="3,1")
    found = estimate(setup(facts(smollm2_gguf), options, (), devices)).devices
    assert [memory.layers for memory in found] == [21, 8, 2]
    caches, models = measured.of("KV"), measured.of("model")
    for memory, address in zip(found[1:], addresses, strict=True):
        (name,) = [name for name in caches if address in name]
        assert memory.kv / MIB == pytest.approx(caches[name], abs=0.0051)
        assert memory.weights / MIB == pytest.approx(models[name], rel=0.01)


async def test_the_engine_itself_answers(smollm2_gguf: Path):
    tools = os.environ.get("CORTEX_TEST_LLAMA_TOOLS")
    if tools is None:
        pytest.skip("CORTEX_TEST_LLAMA_TOOLS names no folder with llama-fit-params")
    tool = find_fit_params(Path(tools) / "llama-fit-params")
    assert tool is not None
    (host, *_) = await tool.ask(smollm2_gguf, LlamaCppOptions(context_size=8192, parallel_slots=1))
    assert host.device == "CPU"
    assert host.kv == 180 * MIB
