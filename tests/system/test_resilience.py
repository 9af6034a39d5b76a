"""Parts of a real stack are frozen, killed and wiped while a client goes on asking."""

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import nats
import openai
import pytest

from cortex_testing.restart import first_answer_s
from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CONTROL_PLANE = ["registry", "orchestrator", "health", "gguf-inspector", "postgres", "nats"]


@dataclass
class Traffic:
    """What a client saw that asked without pause."""

    answered: int = 0
    refused: list[openai.APIStatusError] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)


@contextmanager
def asking(stack: Stack) -> Iterator[Traffic]:
    """A client that asks the demo model again and again, from a thread, until the block ends."""
    traffic, stop = Traffic(), threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            try:
                stack.ask(max_tokens=4, timeout=30)
                traffic.answered += 1
            except openai.APIStatusError as error:
                traffic.refused.append(error)
                time.sleep(0.05)
            except openai.APIError as error:
                traffic.broken.append(error)
                time.sleep(0.05)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        thread.join(timeout=60)
    assert not thread.is_alive(), "a request hangs"


@pytest.mark.parametrize("part", CONTROL_PLANE)
def test_the_gateway_serves_while_a_part_of_the_control_plane_is_frozen(stack: Stack, part: str) -> None:
    with asking(stack) as traffic, stack.frozen(part):
        time.sleep(3)
        before = traffic.answered
        time.sleep(1.5)
        after = traffic.answered
    assert after > before > 0
    assert traffic.refused == []
    assert traffic.broken == []
    eventually(lambda: stack.model()["state"] == "running")


@pytest.mark.parametrize("part", CONTROL_PLANE)
def test_a_killed_part_is_brought_back_and_nobody_notices(stack: Stack, part: str) -> None:
    engines = {engine.pid for engine in stack.engines()}
    with asking(stack) as traffic:
        old = stack.kill(part)
        stack.restarted(part, old)
        before = traffic.answered
        eventually(lambda: traffic.answered > before + 2)
        eventually(lambda: stack.model()["state"] == "running")
    assert traffic.refused == []
    assert traffic.broken == []
    assert {engine.pid for engine in stack.engines()} == engines


def test_a_killed_gateway_is_back_in_seconds(stack: Stack) -> None:
    old = stack.kill("gateway")
    stack.restarted("gateway", old)
    assert eventually(stack.ask, timeout=20)


def test_a_gateway_killed_while_all_else_is_down_answers_from_what_it_knew(stack: Stack) -> None:
    with stack.down("nats", "registry", "postgres"):
        time.sleep(2)
        sys.stdout.write(f"first answer {first_answer_s(stack):.2f} s after the kill\n")
    eventually(lambda: stack.model()["state"] == "running")


@contextmanager
def events(stack: Stack, subject: str) -> Iterator[list[dict[str, Any]]]:
    """Every event on a subject while the block runs."""
    seen: list[dict[str, Any]] = []
    ready, stop = threading.Event(), threading.Event()

    async def listen() -> None:
        client = await nats.connect(stack.ready["nats_url"])

        async def keep(message: Any) -> None:
            seen.append(json.loads(message.data))

        await client.subscribe(subject, cb=keep)
        await client.flush()
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert ready.wait(timeout=10)
    try:
        yield seen
    finally:
        stop.set()
        thread.join(timeout=10)


def test_a_killed_engine_is_reported_and_comes_back_without_a_hand(stack: Stack) -> None:
    [engine] = stack.engines()
    with events(stack, "container.failed") as failed, asking(stack) as traffic:
        eventually(lambda: traffic.answered > 0)
        engine.kill()
        eventually(lambda: failed, timeout=10)
        before = traffic.answered
        eventually(lambda: traffic.answered > before)
        eventually(lambda: stack.model()["state"] == "running")
    data = failed[0]["data"]
    assert data["exit_code"] in (137, -9)
    assert data["log_tail"]
    assert failed[0]["type"] == "container.failed.v1"
    assert traffic.broken == [], "a request was neither answered nor refused"
    for error in traffic.refused:
        assert error.status_code in (502, 503), error
        if error.status_code == 503:
            assert error.response.headers["retry-after"]
    assert [one.pid for one in stack.engines()] != [engine.pid]


def test_an_engine_that_dies_again_and_again_fails_with_its_reason(stack: Stack, smollm2_gguf: Any) -> None:
    broken = stack.models / "cut.gguf"
    stack.add_gguf(smollm2_gguf, "cut.gguf")
    created = stack.admin(
        "POST",
        "/admin/models",
        {"name": "cut", "engine_type": "llamacpp", "local_path": "cut.gguf", "context_size": 256},
    )
    assert created.status_code == 201, created.text
    with broken.open("r+b") as file:
        file.truncate(10_000_000)
    try:
        stack.admin("POST", "/admin/models/cut/start").raise_for_status()
        state = eventually(lambda: (model := stack.model("cut"))["state"] == "failed" and model)
        assert "damaged or was not copied whole" in state["reason"], state["reason"]
        with stack.openai() as client, pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="cut", messages=[{"role": "user", "content": "x"}])
        assert caught.value.status_code == 503
    finally:
        stack.admin("DELETE", "/admin/models/cut").raise_for_status()
        broken.unlink()
    eventually(lambda: not any("cut.gguf" in " ".join(engine.cmdline()) for engine in stack.engines()))


def test_usage_is_kept_while_nats_is_away(stack: Stack) -> None:
    def rows() -> int:
        return stack.admin("GET", f"/admin/usage?model={DEMO}&limit=1").json()["totals"]["requests"]

    settled = eventually(rows)
    time.sleep(1)
    settled = rows()
    with stack.frozen("nats"):
        for _ in range(3):
            stack.ask(max_tokens=4)
    eventually(lambda: rows() == settled + 3)


def test_a_wiped_nats_store_heals_on_start(stack: Stack) -> None:
    keys = {row["id"] for row in stack.admin("GET", "/admin/keys").json()["items"]}
    assert stack.stop() == 0, stack.tail()
    assert stack.engines() == []
    stores = [path for path in stack.home.rglob("jetstream") if path.is_dir()]
    assert stores
    for store in stores:
        shutil.rmtree(store)
    stack.start()
    assert stack.ask()
    assert {row["id"] for row in stack.admin("GET", "/admin/keys").json()["items"]} == keys
    assert stack.model()["state"] == "running"
    created = httpx.get(f"{stack.ready['gateway_url']}/v1/models", headers=_bearer(stack)).json()
    assert DEMO in {model["id"] for model in created["data"]}


def _bearer(stack: Stack) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.ready['api_key']}"}
