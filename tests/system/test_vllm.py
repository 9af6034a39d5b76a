"""A real vLLM and a real llama-server at once behind one gateway, by the process runtime.

Needs a `vllm` program and a tiny model (cortex_testing.binaries): skipped where there is none, unless
CORTEX_REQUIRE_VLLM=1.
"""

import json
import os
import re
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from cortex_testing.binaries import BinaryMissing, tiny_vllm_model, vllm
from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.vllm, pytest.mark.system, pytest.mark.timeout(600)]

TINY = "tiny-llama"
ADAPTER = "tiny-adapter"
MESSAGES = [{"role": "user", "content": "Say hello."}]
LOAD_S = 240.0


def _installed() -> tuple[Path, Path]:
    try:
        return vllm(), tiny_vllm_model()
    except BinaryMissing as missing:
        if os.environ.get("CORTEX_REQUIRE_VLLM") == "1":
            raise
        pytest.skip(str(missing))


def _processes(home: Path) -> list[psutil.Process]:
    """Every process of the tiny model's engine."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(home / "models" / TINY) in word for word in process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with the demo model on llama.cpp and the tiny one on vLLM, both running."""
    program, model = _installed()
    stack = Stack(tmp_path_factory.mktemp("vllm") / "home")
    stack.environment["CORTEX_ORCHESTRATOR_VLLM"] = str(program)
    stack.start()
    try:
        shutil.copytree(model, stack.models / TINY)
        _write_adapter(stack.models / "adapter")
        created = stack.admin(
            "POST",
            "/admin/models",
            {
                "name": TINY,
                "engine_type": "vllm",
                "local_path": TINY,
                "dtype": "float32",
                "max_model_len": 512,
                "enforce_eager": True,
                "kv_cache_memory_bytes": 64 * 1024 * 1024,
                "stop_timeout_s": 25,
                "lora_modules": [{"name": ADAPTER, "path": "adapter"}],
                "max_lora_rank": 8,
            },
        )
        assert created.status_code == 201, created.text
        stack.admin("POST", f"/admin/models/{TINY}/start").raise_for_status()
        eventually(lambda: _state(stack) == "running", timeout=LOAD_S, interval=0.5)
        yield stack
    finally:
        stack.stop(timeout=120)
    assert _processes(stack.home) == [], "a vLLM outlived `cortex up`"


def _write_adapter(folder: Path) -> None:
    """A LoRA adapter of rank 8 for one matrix of the tiny model; all zeros, so that it changes nothing."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    size = 8 * 64 * 4
    header = {
        f"{prefix}A.weight": {"dtype": "F32", "shape": [8, 64], "data_offsets": [0, size]},
        f"{prefix}B.weight": {"dtype": "F32", "shape": [64, 8], "data_offsets": [size, 2 * size]},
    }
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(2 * size))


def _state(stack: Stack) -> str:
    model = stack.model(TINY)
    assert model["state"] != "failed", f"{model}\n{stack.tail(80)}"
    return str(model["state"])


@pytest.mark.parametrize("model", [DEMO, TINY, ADAPTER])
def test_both_engines_answer_the_official_client(both: Stack, model: str) -> None:
    with both.openai() as client:
        answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=6, temperature=0)
    assert answer.model == model
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("model", [DEMO, TINY])
@pytest.mark.parametrize("wanted", [True, False])
def test_both_engines_stream_with_usage_only_when_asked_for(both: Stack, model: str, wanted: bool) -> None:
    options = {"include_usage": True} if wanted else openai.NOT_GIVEN
    with both.openai() as client:
        chunks = list(
            client.chat.completions.create(
                model=model,
                messages=MESSAGES,
                max_tokens=6,
                stream=True,
                stream_options=options,  # type: ignore[arg-type]
            )
        )
    assert {chunk.model for chunk in chunks} == {model}
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] in ("length", "stop")
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(usages) == wanted
    if wanted:
        assert usages[0].completion_tokens <= 6


def test_the_model_list_shows_both(both: Stack) -> None:
    with both.openai() as client:
        assert {DEMO, TINY} <= {model.id for model in client.models.list().data}


def test_a_prompt_that_is_too_long_is_the_same_error_on_both(both: Stack) -> None:
    long = [{"role": "user", "content": "word " * 9000}]
    for model in (DEMO, TINY):
        with both.openai() as client, pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=long, max_tokens=4)
        assert caught.value.code == "context_length_exceeded", model


def test_usage_and_metrics_tell_the_engines_apart(both: Stack) -> None:
    before = _requests(both)
    for model in (DEMO, TINY):
        both.ask(model, max_tokens=4)
    after = _requests(both)
    for engine in ("llamacpp", "vllm"):
        assert after.get(engine, 0) == before.get(engine, 0) + 1, engine

    def recorded() -> bool:
        rows = both.admin("GET", "/admin/usage").json()["items"]
        found = {
            (row["model"], row["engine_type"]) for row in rows if row["prompt_tokens"] and row["completion_tokens"]
        }
        return {(DEMO, "llamacpp"), (TINY, "vllm")} <= found

    eventually(recorded)


def _requests(stack: Stack) -> dict[str, float]:
    """Requests sent to engines by type, from the gateway's metrics."""
    text = httpx.get(f"{stack.ready['gateway_url']}/metrics", timeout=10).text
    counted: dict[str, float] = {}
    for labels, value in re.findall(
        r"^gateway_upstream_selected_by_engine_total\{([^}]*)\} (\S+)$", text, re.MULTILINE
    ):
        engine = re.search(r'engine_type="([^"]*)"', labels)
        if engine is not None:
            counted[engine.group(1)] = counted.get(engine.group(1), 0.0) + float(value)
    return counted


def test_a_stop_lets_streams_finish_and_leaves_no_process(both: Stack) -> None:
    count = 8
    ends: list[str] = []
    begun = threading.Semaphore(0)

    def stream() -> None:
        try:
            with both.openai(timeout=90) as client:
                chunks = client.chat.completions.create(
                    model=TINY,
                    messages=MESSAGES,
                    max_tokens=450,
                    stream=True,
                    extra_body={"ignore_eos": True},
                )
                next(chunks)
                begun.release()
                reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
            ends.append(str(reasons[-1]))
        except openai.APIError as error:
            begun.release()
            ends.append(f"error: {error}")

    streams = [threading.Thread(target=stream) for _ in range(count)]
    for one in streams:
        one.start()
    for _ in range(count):
        assert begun.acquire(timeout=60)
    in_flight = count - len(ends)
    both.admin("POST", f"/admin/models/{TINY}/stop").raise_for_status()
    for one in streams:
        one.join(timeout=90)
    assert not any(one.is_alive() for one in streams), "a stream hangs"
    assert in_flight > 0, "the streams were over before the stop"
    assert ends == ["length"] * count, "vLLM finishes what it has begun"
    eventually(lambda: not _processes(both.home), timeout=90)
    eventually(lambda: _state(both) == "stopped", timeout=30)
    assert both.ask(DEMO), "the other engine serves on"
