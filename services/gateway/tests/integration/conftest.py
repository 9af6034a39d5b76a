"""A real gateway process, a real llama-server, real NATS; the test plays registry, orchestrator and health."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import openai
import pytest
from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId, NodeId, replica_id
from cortex_contracts.documents import EngineLoad, KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind, Verdict
from cortex_contracts.envelope import Envelope, split_batch
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.streams import KEYS, MODELS, REGISTRY_USAGE, REPLICAS, VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.clock import next_version
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore
from cortex_kit.provision import provision
from cortex_kit.secrets import engine_api_key
from cortex_testing.servers import free_port

SPEC_HASH = "abc123"


class Llama:
    """A llama-server on a fixed port."""

    def __init__(self, binary: Path, gguf: Path, secret: str, *, sibling: "Llama | None" = None) -> None:
        self.port = free_port()
        self.model_id = sibling.model_id if sibling is not None else ModelId(uuid7())
        self.ordinal = sibling.ordinal + 1 if sibling is not None else 0
        self.replica_id = replica_id(self.model_id, self.ordinal)
        self.alias = f"smol-{self.model_id[-6:]}"
        self._key = engine_api_key(SecretStr(secret), self.replica_id, SPEC_HASH)
        self._command = [binary, "-m", gguf, "--alias", self.alias, "--port", str(self.port), "--host", "127.0.0.1"]
        self._command += ["-c", "2048", "-np", "2", "-t", "2", "--offline", "--no-ui", "-cram", "0"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | {"LLAMA_API_KEY": self._key},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            wait_http(f"{self.endpoint}/health", 60)

    def signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


class GatewayProcess:
    """`python -m cortex_gateway` on a free port."""

    def __init__(self, nats_url: str, secret: str, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.log = folder / "gateway.log"
        self.spool = folder / "spool"
        self._env = os.environ | {
            "CORTEX_NATS_URL": nats_url,
            "CORTEX_SECRET_KEY": secret,
            "CORTEX_GATEWAY_PORT": str(self.port),
            "CORTEX_GATEWAY_SPOOL_DIR": str(self.spool),
            **{f"CORTEX_GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, ready_s: float = 20) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "cortex_gateway"], env=self._env, stderr=log)
        wait_http(f"{self.url}/readyz", ready_s)

    def signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    def wait(self, timeout_s: float = 20) -> int:
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=20)
        sys.stdout.write(self.log.read_text() if self.log.exists() else "no log")


def wait_http(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass
class World:
    """What the other services would write, and what they would read."""

    bus: Bus
    gateway: GatewayProcess
    records: list[UsageRecordedV1] = field(default_factory=list)

    async def add_model(self, llama: Llama, **fields: object) -> ModelDocumentV1:
        document = ModelDocumentV1.model_validate(
            {
                "aggregateversion": next_version(0),
                "id": llama.model_id,
                "name": "Smol",
                "served_model_name": llama.alias,
                "engine_type": EngineType.LLAMACPP,
                "desired_state": DesiredState.RUNNING,
            }
            | fields
        )
        await KVStore[ModelDocumentV1](self.bus, MODELS).put(document.id, document)
        return document

    async def add_replica(self, llama: Llama, state: ReplicaState = ReplicaState.STARTED, reason: str = "") -> None:
        document = ReplicaDocumentV1(
            aggregateversion=next_version(0),
            id=llama.replica_id,
            model_id=llama.model_id,
            ordinal=getattr(llama, "ordinal", 0),
            engine_type=EngineType.LLAMACPP,
            node=NodeId("test"),
            runtime=RuntimeKind.PROCESS,
            spec_hash=SPEC_HASH,
            state=state,
            reason=reason,
            since=datetime.now(UTC),
            endpoint=llama.endpoint,
        )
        await KVStore[ReplicaDocumentV1](self.bus, REPLICAS).put(document.id, document)

    async def add_verdict(
        self, llama: Llama, verdict: Verdict = Verdict.HEALTHY, reason: str = "", **load: int
    ) -> None:
        document = VerdictDocumentV1(
            aggregateversion=next_version(0),
            replica_id=llama.replica_id,
            model_id=llama.model_id,
            spec_hash=SPEC_HASH,
            endpoint=llama.endpoint,
            verdict=verdict,
            reason=reason,
            since=datetime.now(UTC),
            load=EngineLoad(**load),
        )
        await KVStore[VerdictDocumentV1](self.bus, VERDICTS).put(document.replica_id, document)

    async def add_key(self, **fields: object) -> str:
        secret = f"ctx-{uuid7()}-{uuid7()}"
        document = KeyDocumentV1.model_validate(
            {
                "aggregateversion": next_version(0),
                "id": KeyId(uuid7()),
                "digest": sha256(secret.encode()).hexdigest(),
                "name": "test",
            }
            | fields
        )
        await KVStore[KeyDocumentV1](self.bus, KEYS).put(document.id, document)
        return secret

    async def serve(self, llama: Llama, **fields: object) -> str:
        """Everything a request needs; returns an API key that the gateway knows already."""
        await self.add_model(llama, **fields)
        await self.add_replica(llama)
        await self.add_verdict(llama)
        secret = await self.add_key()
        await self.until_served(secret, llama.alias)
        return secret

    async def until_served(self, secret: str, model: str) -> None:
        async with asyncio.timeout(5), self.client(secret) as client:
            while True:
                try:
                    await client.models.retrieve(model)
                except openai.APIStatusError:
                    await asyncio.sleep(0.02)
                else:
                    await asyncio.sleep(0.05)
                    return

    def client(self, secret: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", api_key=secret, max_retries=0, timeout=30)

    async def usage(self, count: int, timeout_s: float = 10.0) -> list[UsageRecordedV1]:
        """The next usage events of the stream, acknowledged."""
        found: list[UsageRecordedV1] = []
        subscription = await self.bus.js.pull_subscribe_bind(REGISTRY_USAGE.durable, stream=REGISTRY_USAGE.stream)
        async with asyncio.timeout(timeout_s):
            while len(found) < count:
                try:
                    messages = await subscription.fetch(count - len(found), timeout=1)
                except TimeoutError:
                    continue
                for message in messages:
                    parts = [Envelope[UsageRecordedV1].model_validate_json(part) for part in split_batch(message.data)]
                    assert message.headers is not None
                    assert message.headers["Nats-Msg-Id"].startswith(parts[0].id)
                    found += [envelope.data for envelope in parts]
                    await message.ack_sync()
        await subscription.unsubscribe()
        return found

    async def no_more_usage(self) -> None:
        await asyncio.sleep(0.3)
        info = await self.bus.js.stream_info(REGISTRY_USAGE.stream)
        assert info.state.messages == 0


@pytest.fixture(scope="session")
def llama(llama_server_binary: Path, smollm2_gguf: Path, secret_key: str) -> Iterator[Llama]:
    """A running llama-server that the tests leave running."""
    server = Llama(llama_server_binary, smollm2_gguf, secret_key)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def mortal_llama(llama_server_binary: Path, smollm2_gguf: Path, secret_key: str) -> Iterator[Llama]:
    """A running llama-server to kill."""
    server = Llama(llama_server_binary, smollm2_gguf, secret_key)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pair(llama_server_binary: Path, smollm2_gguf: Path, secret_key: str) -> Iterator[tuple[Llama, Llama]]:
    """Two replicas of one model, running; tests leave them running."""
    first = Llama(llama_server_binary, smollm2_gguf, secret_key)
    second = Llama(llama_server_binary, smollm2_gguf, secret_key, sibling=first)
    first.start(wait=False)
    second.start()
    wait_http(f"{first.endpoint}/health", 60)
    yield first, second
    first.kill()
    second.kill()


@pytest.fixture
def new_gateway(nats_url: str, secret_key: str, tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts further gateways on the session's NATS."""
    started: list[GatewayProcess] = []

    def make(**settings: str) -> GatewayProcess:
        folder = tmp_path / f"gateway-{len(started)}"
        folder.mkdir()
        gateway = GatewayProcess(nats_url, secret_key, folder, **settings)
        started.append(gateway)
        gateway.start()
        return gateway

    yield make
    for gateway in started:
        gateway.close()


@pytest.fixture
async def new_world(secret_key: str, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Makes a World on the given NATS, with its gateway started."""
    opened: list[tuple[asyncio.Task[None], GatewayProcess]] = []

    async def make(nats_url: str, **settings: str) -> World:
        bus = Bus(SecretStr(nats_url), name="test")
        task = asyncio.create_task(bus.run())
        await asyncio.wait_for(bus.wait_connected(), 10)
        await provision(bus.js)
        gateway = GatewayProcess(nats_url, secret_key, tmp_path, **settings)
        opened.append((task, gateway))
        await asyncio.to_thread(gateway.start)
        return World(bus, gateway)

    yield make
    for task, gateway in opened:
        await asyncio.to_thread(gateway.close)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(new_world: Callable[..., object], nats_url: str) -> World:
    """A World on the session's NATS."""
    made = await new_world(nats_url)  # type: ignore[misc]
    assert isinstance(made, World)
    await made.bus.js.purge_stream(REGISTRY_USAGE.stream)
    return made
