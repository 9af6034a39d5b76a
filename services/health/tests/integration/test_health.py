"""The service on a real NATS with a real llama-server."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Verdict
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.streams import MODELS, REPLICAS, VERDICTS
from cortex_health.app import build
from cortex_health.settings import Settings
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore, KVView
from cortex_kit.provision import provision
from cortex_kit.secrets import engine_api_key
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Stage:
    """What the tests see: the writer's side of replicas, the reader's side of verdicts."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.replicas = KVStore[ReplicaDocumentV1](bus, REPLICAS)
        self.verdicts = KVView(bus, VERDICTS, VerdictDocumentV1)
        self.events = EventPublisher(bus, source="cortex/gateway/test")
        self.log: list[VerdictDocumentV1 | None] = []
        self.verdicts.on_change(lambda change: self.log.append(change.new))

    def verdict(self, replica: ReplicaDocumentV1) -> Verdict | None:
        document = self.verdicts.items.get(replica.id)
        return document.verdict if document is not None else None

    async def until(self, condition: Callable[[], bool], *, within: float) -> float:
        """Wait; returns how long it took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.01)
        return loop.time() - started

    async def suspect(self, replica: ReplicaDocumentV1) -> None:
        event = UpstreamSuspectedV1(replica_id=replica.id, model_id=replica.model_id, reason="connection refused")
        await self.events.publish(event, aggregate_id=replica.id)


@asynccontextmanager
async def running(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(_run(task)) for task in tasks]
        yield
        running_still = set(started)
        while running_still:  # nats-py's wait_for may swallow a cancellation on Python 3.11, as the runner knows
            for task in running_still:
                task.cancel()
            _, running_still = await asyncio.wait(running_still, timeout=1)


async def _run(task: Callable[[], Awaitable[None]]) -> None:
    await task()


@pytest.fixture
async def stage(nats_server: NatsServer) -> AsyncIterator[Stage]:
    bus = Bus(SecretStr(nats_server.url), name="test")
    stage = Stage(bus)
    async with running(bus.run, stage.verdicts.run):
        await asyncio.wait_for(bus.wait_connected(), timeout=10)
        await provision(bus.js)
        await asyncio.wait_for(stage.verdicts.wait_synced(), timeout=10)
        yield stage


@asynccontextmanager
async def health(url: str, secret_key: str, **changes: float) -> AsyncIterator[None]:
    settings = Settings(nats_url=SecretStr(url), secret_key=SecretStr(secret_key), **changes)  # type: ignore[arg-type]
    async with build(settings) as service, running(*service.tasks.values()):
        yield
        assert service.drain is not None
        await service.drain()


class FakeEngine:
    """Just enough of an HTTP server to be probed; `status` can be changed, `hits` counts probes."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.hits = 0
        self.port = free_port()
        self._server: asyncio.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.hits += head.startswith(b"GET /health ")
        writer.write(f"HTTP/1.1 {self.status}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    await engine.start()
    yield engine
    await engine.stop()


def model_of(replica: ReplicaDocumentV1) -> ModelDocumentV1:
    fields = {"id": replica.model_id, "name": "smol", "served_model_name": "smol", "engine_type": "llamacpp"}
    return ModelDocumentV1.model_validate({"aggregateversion": 1, "desired_state": "running", **fields})


def engine_metric(*names: str) -> float | None:
    """Sum of what this process shows of the one engine; None while one of them is missing."""
    page = generate_latest().decode()
    found = [re.search(rf'^cortex_engine_{name}{{.*model="smol".*}} (\S+)$', page, re.MULTILINE) for name in names]
    return sum(float(match[1]) for match in found if match) if all(found) else None


async def talk(port: int, key: str) -> None:
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {key}"}) as client:
        body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4, "ignore_eos": True}
        answer = await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200


async def test_a_real_llama_server_loads_serves_and_dies(
    stage: Stage,
    nats_server: NatsServer,
    secret_key: str,
    make_replica: Callable[..., ReplicaDocumentV1],
    llama_server_binary: Path,
    smollm2_gguf: Path,
    tmp_path: Path,
):
    port = free_port()
    replica = make_replica(endpoint=f"http://127.0.0.1:{port}", since=datetime.now(UTC))
    key = engine_api_key(SecretStr(secret_key), replica.id, replica.spec_hash)
    await KVStore[ModelDocumentV1](stage.bus, MODELS).put(replica.model_id, model_of(replica))
    async with health(nats_server.url, secret_key, canary_interval_s=600, traffic_interval_s=0.3):
        await stage.replicas.put(replica.id, replica)
        await stage.until(lambda: stage.verdict(replica) is Verdict.LOADING, within=10)
        arguments = ["-m", str(smollm2_gguf), "--port", str(port), "-c", "512", "-np", "2", "--no-warmup", "-t", "2"]
        arguments.append("--metrics")
        with (tmp_path / "engine.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(llama_server_binary), *arguments, stdout=log, stderr=log, env=os.environ | {"LLAMA_API_KEY": key}
            )
        try:
            await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=60)
            await stage.until(lambda: stage.verdicts.items[replica.id].load.slots_total == 2, within=5)
            assert stage.verdicts.items[replica.id].load.context_per_slot == 256
            await stage.until(lambda: engine_metric("generated_tokens_total") == 1, within=20)  # the canary's one token
            await talk(port, key)
            await stage.until(lambda: (engine_metric("generated_tokens_total") or 0) >= 5, within=20)
            assert engine_metric("slots") == 2
            assert engine_metric("prompt_tokens_total", "cached_prompt_tokens_total") is not None
            await stage.until(lambda: stage.verdicts.items[replica.id].load.work_total is not None, within=10)
            process.kill()
            await process.wait()
            took = await stage.until(lambda: stage.verdict(replica) is Verdict.UNHEALTHY, within=10)
            assert took < 3
            assert stage.verdicts.items[replica.id].reason == "connection refused"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await stage.replicas.delete(replica.id)
        await stage.until(lambda: replica.id not in stage.verdicts.items, within=5)
    verdicts = [document.verdict for document in stage.log if document is not None]
    assert list(dict.fromkeys(verdicts)) == [Verdict.LOADING, Verdict.HEALTHY, Verdict.UNHEALTHY]
    for subject in ("upstream.healthy", "upstream.unhealthy"):
        assert await stage.bus.js.get_last_msg("EVENTS", subject)


async def test_a_suspicion_is_looked_into_at_once(
    stage: Stage, nats_server: NatsServer, secret_key: str, make_replica: Callable, engine: FakeEngine
):
    replica = make_replica(endpoint=engine.endpoint)
    async with health(nats_server.url, secret_key, healthy_interval_s=600, doubtful_interval_s=600):
        await stage.replicas.put(replica.id, replica)
        await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=15)
        hits = engine.hits
        await stage.suspect(replica)
        # The first look after the start of the consumer may wait for it; the next ones are the promise.
        await stage.until(lambda: engine.hits > hits, within=10)
        hits = engine.hits
        await stage.suspect(replica)
        assert await stage.until(lambda: engine.hits > hits, within=5) < 1
        await engine.stop()
        for _ in range(3):
            await stage.suspect(replica)
            await asyncio.sleep(0.2)
        await stage.until(lambda: stage.verdict(replica) is Verdict.UNHEALTHY, within=5)


async def test_probing_goes_on_without_nats_and_verdicts_return_after_a_wipe(
    stage: Stage, nats_server: NatsServer, secret_key: str, make_replica: Callable, engine: FakeEngine
):
    replica = make_replica(endpoint=engine.endpoint)
    async with health(nats_server.url, secret_key):
        await stage.replicas.put(replica.id, replica)
        await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=15)
        nats_server.kill()
        hits = engine.hits
        await stage.until(lambda: engine.hits > hits + 1, within=10)
        engine.status = "503 Service Unavailable"
        nats_server.wipe()
        nats_server.start()
        await stage.until(lambda: stage.bus.connected, within=20)
        await provision(stage.bus.js)
        await stage.replicas.put(replica.id, replica)
        await stage.until(lambda: stage.verdict(replica) is Verdict.LOADING, within=20)
        engine.status = "200 OK"
        await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=20)


async def test_a_restart_of_the_store_brings_back_what_changed_meanwhile(
    stage: Stage, nats_server: NatsServer, secret_key: str, make_replica: Callable, engine: FakeEngine
):
    replica = make_replica(endpoint=engine.endpoint)
    async with health(nats_server.url, secret_key):
        await stage.replicas.put(replica.id, replica)
        await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=15)
        nats_server.stop()
        await engine.stop()
        await asyncio.sleep(3)
        nats_server.start()
        await provision_again(stage)
        await stage.until(lambda: stage.verdict(replica) is Verdict.UNHEALTHY, within=20)
    assert await stage.bus.js.get_last_msg("EVENTS", "upstream.unhealthy")


async def provision_again(stage: Stage) -> None:
    await stage.until(lambda: stage.bus.connected, within=20)
    await provision(stage.bus.js)


async def test_one_of_two_instances_probes_and_the_other_takes_over(
    stage: Stage, nats_server: NatsServer, secret_key: str, make_replica: Callable, engine: FakeEngine
):
    replica = make_replica(endpoint=engine.endpoint)
    patient = {"probe_timeout_s": 30.0, "connect_timeout_s": 30.0}  # a busy machine must not look like a sick engine
    await stage.replicas.put(replica.id, replica)
    async with health(nats_server.url, secret_key, instance="two", **patient):  # type: ignore[arg-type]
        await stage.until(lambda: stage.verdict(replica) is Verdict.HEALTHY, within=15)
        async with health(nats_server.url, secret_key, instance="one", **patient):  # type: ignore[arg-type]
            await asyncio.sleep(1)
        writes = len(stage.log)
        hits = engine.hits
        await asyncio.sleep(2.2)
        await stage.until(lambda: engine.hits > hits, within=15)
        assert engine.hits - hits <= 4
        assert len(stage.log) == writes
    async with health(nats_server.url, secret_key, instance="three"):  # type: ignore[arg-type]
        hits = engine.hits
        await stage.until(lambda: engine.hits > hits, within=15)
        await engine.stop()
        await stage.until(lambda: stage.verdict(replica) is Verdict.UNHEALTHY, within=10)


async def test_the_program_starts_reports_ready_and_stops_cleanly(
    nats_server: NatsServer, stage: Stage, secret_key: str
):
    port = free_port()
    environment = os.environ | {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_HEALTH_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cortex_health", env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        async with asyncio.timeout(30):
            while True:
                try:
                    ready = await client.get("/readyz")
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if ready.status_code == 200:
                    break
                await asyncio.sleep(0.1)
        assert "cortex_health_replicas" in (await client.get("/metrics")).text
    process.terminate()
    _, log = await asyncio.wait_for(process.communicate(), timeout=20)
    assert process.returncode == 0, log.decode()
