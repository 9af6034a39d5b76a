"""A host with room for two models of three: real engines, health and inspector; only the size of the host is made up."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Lifecycle, ReplicaState, Verdict
from cortex_contracts.estimates import EstimateRequestV1, EstimateResultV1
from cortex_contracts.events import ModelDemandedV1
from cortex_contracts.operations import DryRunRequestV1, DryRunResultV1
from cortex_contracts.streams import REPLICAS, VERDICTS
from cortex_contracts.subjects import RPC_GGUF_ESTIMATE, RPC_ORCHESTRATOR_DRY_RUN
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.events import EventPublisher
from cortex_kit.ids import uuid7
from cortex_kit.secrets import engine_api_key

MOUNTS = ["unshare", "--mount", "--propagation", "private"]


def _may_mount() -> bool:
    if os.geteuid() != 0:
        return False
    return subprocess.run([*MOUNTS, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not _may_mount(), reason="a small host is made by mounting over /proc/meminfo, which takes root"
    ),
]
PATIENCE_S = 90


class SmallHost:
    """What the orchestrator sees of the memory, and the services around it."""

    def __init__(self, cluster: Any, bus: Bus, binary: Path) -> None:
        self.cluster = cluster
        self.bus = bus
        self._meminfo = cluster.folder / "meminfo"
        self.memory(64 << 30)
        self.hang = cluster.folder / "hang"
        wrapper = cluster.folder / "llama-server"
        wrapper.write_text(f'#!/bin/sh\n[ -e {self.hang} ] && kill -STOP $$\nexec {binary} "$@"\n')
        wrapper.chmod(0o755)
        cluster.extra |= {
            "CORTEX_ORCHESTRATOR_LLAMA_SERVER": str(wrapper),
            "CORTEX_ORCHESTRATOR_HOST_MEMORY_RESERVE_BYTES": "0",
            "CORTEX_HEALTH_PORT": "0",
            "CORTEX_INSPECTOR_PORT": "0",
        }

    def memory(self, size: int) -> None:
        """All of it is free by what is measured; what is promised counts. One write: it may be read at any moment."""
        lines = {"MemTotal": size, "MemFree": size, "MemAvailable": size, "Buffers": 0, "Cached": 0, "SReclaimable": 0}
        rest = {"Shmem": 0, "Active": 0, "Inactive": 0, "Slab": 0, "SwapTotal": 0, "SwapFree": 0}
        text = "".join(f"{name}: {value // 1024:>16} kB\n" for name, value in (lines | rest).items())
        descriptor = os.open(self._meminfo, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, text.encode())
        os.close(descriptor)

    def start(self) -> None:
        command = f"mount --bind {self._meminfo} /proc/meminfo && exec {sys.executable} -m cortex_orchestrator"
        self._run([*MOUNTS, "sh", "-c", command])
        self._run([sys.executable, "-m", "cortex_health"])
        self._run([sys.executable, "-m", "cortex_gguf_inspector"])

    def _run(self, command: list[str]) -> None:
        cluster = self.cluster
        with (cluster.folder / f"part-{len(cluster.processes)}.log").open("wb") as log:
            cluster.processes.append(subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log))

    async def demand(self, model: ModelDocumentV1) -> None:
        """As a gateway does when a request comes for a model that sleeps."""
        events = EventPublisher(self.bus, source="cortex/gateway/test", clock=SystemClock())
        event = ModelDemandedV1(model_id=model.id, served_model_name=model.served_model_name)
        await events.publish(event, aggregate_id=model.id)

    async def documents(self, model: ModelDocumentV1) -> list[ReplicaDocumentV1]:
        kv = await self.cluster.jetstream.key_value(REPLICAS.name)
        keys = [key for key in await self.cluster.replicas() if key.startswith(model.id)]
        return [ReplicaDocumentV1.model_validate_json((await kv.get(key)).value) for key in keys]

    async def healthy(self, model: ModelDocumentV1, *, than: str = "") -> ReplicaDocumentV1:
        """The model's replica, once health has found it healthy; of another specification `than` this."""

        async def is_healthy() -> ReplicaDocumentV1 | None:
            for document in await self.documents(model):
                if document.state is not ReplicaState.STARTED or document.spec_hash == than:
                    continue
                entry = await (await self.cluster.jetstream.key_value(VERDICTS.name)).get(document.id)
                verdict = VerdictDocumentV1.model_validate_json(entry.value)
                if verdict.verdict is Verdict.HEALTHY and verdict.endpoint == document.endpoint:
                    return document
            return None

        return await self.cluster.until(is_healthy, f"{model.name} is healthy", timeout=PATIENCE_S)

    def stopped(self, model: ModelDocumentV1) -> str | None:
        """Why its engine was stopped last."""
        reasons = [
            event["data"]["reason"]
            for subject, event in self.cluster.events
            if subject == "container.stopped" and event["data"]["model_id"] == model.id
        ]
        return reasons[-1] if reasons else None

    async def preview(self, model: ModelDocumentV1, estimate: EstimateResultV1) -> tuple[str, ...]:
        """Who would give way."""
        request = DryRunRequestV1(model=model, estimate=estimate)
        found = await self.bus.request(RPC_ORCHESTRATOR_DRY_RUN, request, DryRunResultV1, timeout=30)
        return found.placement.evicts

    async def stream(self, document: ReplicaDocumentV1, tokens: int) -> int:
        """Tokens of one long answer; raises when it breaks off."""
        key = engine_api_key(SecretStr(self.cluster.secret_key), document.id, document.spec_hash)
        body = {"prompt": "Count:", "max_tokens": tokens, "stream": True, "ignore_eos": True}
        headers = {"Authorization": f"Bearer {key}"}
        count = 0
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S) as client,
            client.stream("POST", f"{document.endpoint}/v1/completions", json=body, headers=headers) as response,
        ):
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return count
                if line.startswith("data: "):
                    count += len(json.loads(line[6:])["choices"])
        raise AssertionError("the stream broke off")


@pytest.fixture
async def host(cluster: Any, llama_server_binary: Path) -> AsyncIterator[SmallHost]:
    bus = Bus(SecretStr(cluster.server.url), name="test")
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(60):
        await bus.wait_connected()
    yield SmallHost(cluster, bus, llama_server_binary)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_models_on_demand_give_way_by_cost_and_never_at_work_and_a_change_without_room_stops_first(
    cluster: Any, host: SmallHost, llama_model: ModelDocumentV1
) -> None:
    options = llama_model.llamacpp.model_copy(update={"context_size": 4096})
    dear, cheap, wanted = (
        llama_model.model_copy(
            update={
                "id": ModelId(uuid7()),
                "name": name,
                "served_model_name": name,
                "lifecycle": Lifecycle.ON_DEMAND,
                "idle_ttl_s": 3600,
                "llamacpp": options,
            }
        )
        for name in ("dear", "cheap", "wanted")
    )
    host.start()
    for model in (dear, cheap, wanted):
        await cluster.put(model)
    for model in (dear, cheap):
        await host.demand(model)
        await host.healthy(model)
    request = EstimateRequestV1(path="smollm2.gguf", llamacpp=options, search=False)
    estimate = await host.bus.request(RPC_GGUF_ESTIMATE, request, EstimateResultV1, timeout=30)
    host.memory(int(2.5 * sum(device.total for device in estimate.devices)))
    for _ in range(9):
        await host.demand(dear)

    async def previewed() -> bool:
        return await host.preview(wanted, estimate) == (cheap.id,)

    await cluster.until(previewed, "the model of least cost would give way", timeout=PATIENCE_S)
    streaming = asyncio.create_task(host.stream(await host.healthy(cheap), 600))

    async def spared() -> bool:
        return await host.preview(wanted, estimate) == (dear.id,)

    await cluster.until(spared, "a model at work is spared", timeout=PATIENCE_S)
    assert host.stopped(dear) is host.stopped(cheap) is None, "a preview changes nothing"
    await host.demand(wanted)
    served = await host.healthy(wanted)
    assert await cluster.chat(served)
    assert host.stopped(dear) == "it gives way to wanted"
    assert await streaming > 500
    assert host.stopped(cheap) is None

    await cluster.put(wanted.model_copy(update={"restart_generation": 1}))
    assert await cluster.chat(await host.healthy(wanted, than=served.spec_hash))
    assert "it is stopped before its successor starts" in str(host.stopped(wanted))

    host.memory(64 << 30)
    before = await host.healthy(cheap)
    await cluster.put(cheap.model_copy(update={"restart_generation": 1}))
    assert await cluster.chat(await host.healthy(cheap, than=before.spec_hash))
    await cluster.until(lambda: host.stopped(cheap), "the old replica goes when the new one serves", timeout=PATIENCE_S)
    assert host.stopped(cheap) == "its specification changed; a successor takes its place"


async def test_an_engine_that_does_not_serve_in_time_fails_with_a_diagnosis_and_is_tried_again(
    cluster: Any, host: SmallHost, llama_model: ModelDocumentV1
) -> None:
    host.start()
    model = llama_model.model_copy(update={"startup_timeout_s": 3})
    sound = llama_model.model_copy(update={"id": ModelId(uuid7())})
    await cluster.put(sound)
    await host.healthy(sound)
    host.hang.touch()
    await cluster.put(model)

    def failures() -> list[dict[str, Any]]:
        return [
            event["data"]
            for subject, event in cluster.events
            if subject == "container.failed" and event["data"]["model_id"] == model.id
        ]

    await cluster.until(failures, "the timeout is told", timeout=PATIENCE_S)
    assert failures()[0]["diagnosis"]["code"] == "startup_timeout"
    assert "3 s after its start" in failures()[0]["reason"]
    assert "startup_timeout_s" in failures()[0]["diagnosis"]["fix"]
    host.hang.unlink()
    assert await cluster.chat(await host.healthy(model))
