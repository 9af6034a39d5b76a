"""A registry's part and an observer's, played on a real NATS, and orchestrators as real processes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import docker
import httpx
import nats
import psutil
import pytest
from nats.js.errors import KeyNotFoundError, NoKeysError
from pydantic import SecretStr

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState
from cortex_contracts.streams import MODELS, REPLICAS
from cortex_kit.clock import next_version
from cortex_kit.ids import uuid7
from cortex_kit.provision import provision
from cortex_kit.secrets import engine_api_key


class Nats(Protocol):
    url: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def wipe(self) -> None: ...


class Cluster:
    """NATS with everything provisioned, a models folder, and any number of orchestrators."""

    def __init__(self, server: Nats, folder: Path, models_dir: Path, secret_key: str) -> None:
        self.server = server
        self.folder = folder
        self.models_dir = models_dir
        self.secret_key = secret_key
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.extra: dict[str, str] = {}
        self.client: nats.NATS | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")},
            "CORTEX_NATS_URL": self.server.url,
            "CORTEX_SECRET_KEY": self.secret_key,
            "CORTEX_MODELS_DIR": str(self.models_dir),
            "CORTEX_ORCHESTRATOR_PORT": "0",
            "CORTEX_ORCHESTRATOR_NODE": "testnode",
            "CORTEX_ORCHESTRATOR_STATE_DIR": str(self.folder / "state"),
            "CORTEX_ORCHESTRATOR_LEASE_TTL_S": "1",
            "CORTEX_ORCHESTRATOR_RESYNC_S": "1",
            "CORTEX_ORCHESTRATOR_ABSENCE_GRACE_S": "3",
            **self.extra,
        }

    async def connect(self) -> None:
        """Connect as the registry does, and provision."""
        self.client = await nats.connect(self.server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
        await provision(self.client.jetstream())
        await self.client.subscribe("container.>", cb=self._record)
        await self.client.subscribe("node.>", cb=self._record)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def _record(self, message: Any) -> None:
        self.events.append((message.subject, json.loads(message.data)))

    def start(self) -> "subprocess.Popen[bytes]":
        log = (self.folder / f"orchestrator-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "cortex_orchestrator"], env=self.environment, stderr=log, stdout=log
        )
        log.close()
        self.processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in sorted(self.folder.glob("*.log")))

    async def put(self, model: ModelDocumentV1) -> None:
        kv = await self.jetstream.key_value(MODELS.name)
        document = model.model_copy(update={"aggregateversion": next_version(0)})
        await kv.put(model.id, document.model_dump_json().encode())

    async def delete(self, model: ModelDocumentV1) -> None:
        await (await self.jetstream.key_value(MODELS.name)).delete(model.id)

    @property
    def jetstream(self) -> Any:
        assert self.client is not None
        return self.client.jetstream(timeout=5)

    async def replica(self, model: ModelDocumentV1) -> ReplicaDocumentV1 | None:
        kv = await self.jetstream.key_value(REPLICAS.name)
        try:
            entry = await kv.get(f"{model.id}-0")
        except KeyNotFoundError:
            return None
        return ReplicaDocumentV1.model_validate_json(entry.value)

    async def replicas(self) -> list[str]:
        kv = await self.jetstream.key_value(REPLICAS.name)
        try:
            return await kv.keys()
        except NoKeysError:
            return []

    async def wait_started(self, model: ModelDocumentV1, not_endpoint: str | None = None) -> ReplicaDocumentV1:
        async def started() -> ReplicaDocumentV1 | None:
            document = await self.replica(model)
            right = document is not None and document.state is ReplicaState.STARTED
            return document if right and document.endpoint != not_endpoint else None

        return await self.until(started, "the replica starts")

    async def until(self, check: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
        """Poll until `check`, plain or async, gives something true."""
        deadline = asyncio.get_running_loop().time() + timeout
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                result = check()
                result = await result if asyncio.iscoroutine(result) else result
                if result:
                    return result
            await asyncio.sleep(0.1)
        raise AssertionError(f"it did not come to this: {what}\n{self.subjects()}\n{self.logs()}")

    def subjects(self) -> list[str]:
        return [subject for subject, _ in self.events]

    def event(self, subject: str) -> dict[str, Any] | None:
        return next((event["data"] for name, event in reversed(self.events) if name == subject), None)

    async def chat(self, document: ReplicaDocumentV1) -> str:
        """One real answer, with the engine's own key."""
        assert document.endpoint is not None
        key = engine_api_key(SecretStr(self.secret_key), document.id, document.spec_hash)
        body = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 8}
        async with httpx.AsyncClient(base_url=document.endpoint, timeout=20) as client:
            for _ in range(200):
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.post(
                        "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
                    )
                    if answer.status_code == 200:
                        return str(answer.json()["choices"][0]["message"]["content"])
                    assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
        raise AssertionError(f"the engine does not answer\n{self.logs()}")

    def engines(self) -> list[psutil.Process]:
        """Engine processes that serve from our models folder."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if command and "llama-server" in command[0] and any(str(self.models_dir) in word for word in command):
                    found.append(process)
        return found

    def stop_engines(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cortex_orchestrator", "stop-engines"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
async def cluster(nats_server: Nats, tmp_path: Path, models_dir: Path, secret_key: str) -> AsyncIterator[Cluster]:
    made = Cluster(nats_server, tmp_path, models_dir, secret_key)
    await made.connect()
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    made.stop_engines()
    await made.close()
    assert made.engines() == []


@pytest.fixture
def llama_model() -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId(uuid7()),
        name="SmolLM2",
        served_model_name="smollm2",
        engine_type=EngineType.LLAMACPP,
        local_path="smollm2.gguf",
        llamacpp=LlamaCppOptions(context_size=1024, parallel_slots=1, threads=2, skip_warmup=True, cache_ram_mib=0),
        desired_state=DesiredState.RUNNING,
        stop_timeout_s=6,
        aggregateversion=1,
    )


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def llama_image(docker_engine_required: None) -> str:
    """llama-server from its wheel in an image, built once a session; the layers are cached by the engine."""
    folder = Path(__file__).parents[4] / "images" / "llamacpp-server"
    client = docker.from_env(timeout=600)
    client.images.build(path=str(folder), tag="cortex/llamacpp-server:test", rm=True, buildargs={"GPU_DRIVERS": ""})
    client.close()
    return "cortex/llamacpp-server:test"
