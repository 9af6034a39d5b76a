"""Stopping a model that answers: what is in flight ends, well or with a clean error, and never hangs. Waking one up."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_testing.stack import Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STREAMS = 8
NAME = "drained"


@dataclass
class Stream:
    """One client's view of a streamed answer."""

    chunks: int = 0
    finished: bool = False
    error: dict[str, Any] | None = None
    broken: str | None = None
    first: threading.Event = field(default_factory=threading.Event)
    over: float | None = None

    @property
    def clean(self) -> bool:
        return self.broken is None and (self.finished or self.error is not None)


def read(stack: Stack, stream: Stream, max_tokens: int) -> None:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Count from one to one thousand in words."}],
        "max_tokens": max_tokens,
        "temperature": 1,
        "stream": True,
        "ignore_eos": True,
    }
    headers = {"Authorization": f"Bearer {stack.ready['api_key']}"}
    url = f"{stack.ready['gateway_url']}/v1/chat/completions"
    try:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as response:
            if response.status_code != 200:
                stream.error = json.loads(response.read())["error"]
            for line in response.iter_lines():
                take(stream, line)
    except httpx.HTTPError as error:
        stream.broken = repr(error)
    finally:
        stream.first.set()
        stream.over = time.monotonic()


def take(stream: Stream, line: str) -> None:
    data = line.removeprefix("data: ")
    if data == line or data == "[DONE]":
        return
    event = json.loads(data)
    stream.error = event.get("error", stream.error)
    for choice in event.get("choices", []):
        stream.chunks += 1
        stream.finished |= choice.get("finish_reason") is not None
    if stream.chunks >= 2:
        stream.first.set()


@pytest.fixture
def drained(stack: Stack, smollm2_gguf: Path) -> Iterator[Stack]:
    stack.add_gguf(smollm2_gguf, "drained.gguf")
    yield stack
    stack.admin("POST", f"/admin/models/{NAME}/stop")
    eventually(lambda: not any("drained.gguf" in " ".join(engine.cmdline()) for engine in stack.engines()), timeout=90)
    stack.cli("model", "delete", NAME, "--yes")


def create(stack: Stack, **changes: Any) -> None:
    body = {"name": NAME, "engine_type": "llamacpp", "local_path": "drained.gguf", "parallel_slots": STREAMS}
    body |= {"context_size": 16384, "kv_unified": True} | changes
    response = stack.admin("POST", "/admin/models", body)
    assert response.status_code == 201, response.text
    stack.admin("POST", f"/admin/models/{NAME}/start").raise_for_status()


def stop_while_streaming(stack: Stack, max_tokens: int) -> tuple[list[Stream], float]:
    """Eight streams, a stop when each has begun; returns them and when the stop was asked for."""
    streams = [Stream() for _ in range(STREAMS)]
    threads = [threading.Thread(target=read, args=(stack, stream, max_tokens)) for stream in streams]
    for thread in threads:
        thread.start()
    for stream in streams:
        assert stream.first.wait(60), stream
    asked = time.monotonic()
    stack.admin("POST", f"/admin/models/{NAME}/stop").raise_for_status()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads), "a stream hangs"
    return streams, asked


def test_streams_in_flight_are_finished_before_the_engine_stops(drained: Stack) -> None:
    create(drained, stop_timeout_s=90)
    eventually(lambda: drained.model(NAME)["state"] == "running", timeout=90)
    streams, _ = stop_while_streaming(drained, max_tokens=40)
    assert all(stream.finished and stream.error is None and stream.broken is None for stream in streams), streams
    eventually(lambda: drained.model(NAME)["state"] == "stopped", timeout=90)


def test_streams_that_take_too_long_end_with_an_error_before_the_deadline(drained: Stack) -> None:
    create(drained, stop_timeout_s=10)
    eventually(lambda: drained.model(NAME)["state"] == "running", timeout=90)
    streams, asked = stop_while_streaming(drained, max_tokens=1900)
    assert all(stream.clean for stream in streams), streams
    cut = [stream for stream in streams if stream.error is not None]
    assert cut, "all streams were done before the deadline: the test shows nothing"
    assert all(stream.error and stream.error["message"] for stream in cut)
    assert max(stream.over or 0.0 for stream in streams) - asked < 20
    eventually(lambda: drained.model(NAME)["state"] == "stopped", timeout=60)


def test_a_request_wakes_a_model_on_demand_which_sleeps_again_when_nobody_asks(drained: Stack) -> None:
    create(drained, lifecycle="on_demand", idle_ttl_s=15, skip_warmup=True)
    asleep = drained.model(NAME)
    assert (asleep["state"], "asleep" in asleep["reason"]) == ("stopped", True)
    answer = drained.ask(NAME, timeout=120)
    assert answer.strip()
    assert drained.model(NAME)["state"] == "running"
    eventually(lambda: drained.model(NAME)["state"] == "stopped", timeout=120)
