"""Orchestrators that die at the worst moments, and two of them at once: one engine a replica, and none forgotten."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import ReplicaState
from cortex_kit.ids import uuid7

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

CRASHING = Path(__file__).parents[1] / "crashing.py"
MAX_STEPS = 40


def another(model: ModelDocumentV1) -> ModelDocumentV1:
    return model.model_copy(update={"id": ModelId(uuid7())})


def start_crashing(cluster: Any, model: ModelDocumentV1, step: int) -> "subprocess.Popen[bytes]":
    log = (cluster.folder / f"crashing-{step}.log").open("wb")
    command = [sys.executable, str(CRASHING), f"{model.id}-0", str(step)]
    process = subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log)
    log.close()
    cluster.processes.append(process)
    return process


async def test_killed_at_every_step_of_a_start_its_successor_converges(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    """Each orchestrator is the successor of the one before, and dies one step later in the start of its own model."""
    model = another(llama_model)
    process = start_crashing(cluster, model, 1)
    for step in range(1, MAX_STEPS):
        log = cluster.folder / f"crashing-{step}.log"
        await cluster.until(
            lambda log=log: "lease_acquired" in log.read_text(), f"the orchestrator of step {step} acts"
        )
        following = another(llama_model)
        successor = start_crashing(cluster, following, step + 1)
        await cluster.put(model)

        async def killed_or_done(process: Any = process, model: Any = model) -> bool:
            document = await cluster.replica(model)
            started = document is not None and document.state is ReplicaState.STARTED
            return process.poll() is not None or (started and _reported(cluster, model, "container.started"))

        await cluster.until(killed_or_done, f"step {step} comes, or the start is over")
        await asyncio.sleep(0.3)
        survived = process.poll() is None
        await _converges(cluster, model, f"after a death at step {step}")
        await cluster.delete(model)
        await cluster.until(lambda: not cluster.engines(), "the engine of a deleted model is stopped")
        if survived:
            assert step > 14, f"a start has fewer steps than it should have\n{cluster.logs()}"
            break
        assert process.returncode == -signal.SIGKILL
        model, process = following, successor
    else:
        pytest.fail(f"a start has more than {MAX_STEPS} steps")


def _reported(cluster: Any, model: ModelDocumentV1, subject: str) -> bool:
    return any(name == subject and event["data"]["model_id"] == model.id for name, event in cluster.events)


async def _converges(cluster: Any, model: ModelDocumentV1, when: str) -> None:
    async def converged() -> bool:
        document = await cluster.replica(model)
        engines = cluster.engines()
        if document is None or document.state is not ReplicaState.STARTED or len(engines) != 1:
            return False
        port = str(document.endpoint).rpartition(":")[2]
        return port in engines[0].cmdline()

    await cluster.until(converged, f"one engine and a true document {when}", timeout=60)
    pid = cluster.engines()[0].pid
    await asyncio.sleep(0.5)
    assert [engine.pid for engine in cluster.engines()] == [pid], f"an engine was replaced {when}"


async def test_of_two_orchestrators_one_acts_and_the_other_takes_over_in_seconds(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    first = cluster.start()
    models = [another(llama_model) for _ in range(3)]
    for model in models:
        await cluster.put(model)
    for model in models:
        await cluster.wait_started(model)
    second = cluster.start()
    await asyncio.sleep(3)
    before = sorted(engine.pid for engine in cluster.engines())
    assert len(before) == 3

    first.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    late = another(llama_model)
    await cluster.put(late)
    await cluster.wait_started(late)
    took = time.monotonic() - killed
    print(f"take-over, with a start: {took:.1f} s")  # noqa: T201
    assert second.poll() is None
    pids = sorted(engine.pid for engine in cluster.engines())
    assert set(before) < set(pids)
    assert len(pids) == 4
    created = [event["data"]["model_id"] for subject, event in cluster.events if subject == "container.created"]
    assert sorted(created) == sorted(model.id for model in [*models, late])
    adopted = [event["data"]["model_id"] for subject, event in cluster.events if subject == "container.adopted"]
    assert sorted(adopted) == sorted(model.id for model in models)
