"""Engines and a gateway before them, with the documents that the other services would write."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind, Task, Verdict
from cortex_contracts.streams import KEYS, MODELS, REPLICAS, VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.clock import next_version
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore
from cortex_kit.provision import provision
from cortex_kit.secrets import engine_api_key
from cortex_testing.servers import free_port

SPEC_HASH = "abc123"
ENGINE_START_S = 240.0


@dataclass
class EngineProcess:
    """An engine of one model on a port of its own; `fields` go into the model's document."""

    command: list[str]
    """Without port and key."""
    name: str
    engine_type: EngineType
    task: Task
    secret: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.port = free_port()
        self.model_id = ModelId(uuid7())
        self.replica_id = replica_id(self.model_id, 0)
        self.key = engine_api_key(SecretStr(self.secret), self.replica_id, SPEC_HASH)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` says when it answers."""
        self._process = subprocess.Popen(
            [*self.command, "--port", str(self.port), "--host", "127.0.0.1"],
            env=os.environ | {"LLAMA_API_KEY": self.key, "VLLM_API_KEY": self.key} | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        wait_http(f"{self.url}/health", ENGINE_START_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=10)


def llama(binary: Path, gguf: Path, task: Task, secret: str, *, slots: int = 2) -> EngineProcess:
    """A llama-server with 1,024 tokens of context per slot."""
    context = 1024 * slots
    command = [str(binary), "-m", str(gguf), "--alias", f"llama-{task}", "-c", str(context), "-np", str(slots)]
    command += ["-t", "2", "--offline", "--no-ui", "-cram", "0", "--no-repack"]
    command += {Task.GENERATE: [], Task.EMBED: ["--embeddings", "--pooling", "mean"]}.get(
        task, ["--embeddings", "--pooling", "rank", "--rerank"]
    )
    fields = {"llamacpp": {"context_size": context, "parallel_slots": slots}}
    return EngineProcess(command, f"llama-{task}", EngineType.LLAMACPP, task, secret, fields)


def vllm(program: Path, model: Path, task: Task, secret: str) -> EngineProcess:
    """A vLLM on the CPU with 512 tokens of context."""
    command = [str(program), "serve", str(model), "--served-model-name", f"vllm-{task}", "--max-model-len", "512"]
    command += ["--enforce-eager", "--dtype", "float32", "--kv-cache-memory-bytes", str(64 * 1024 * 1024)]
    command += ["--shutdown-timeout", "2"]
    match task:
        case Task.GENERATE:
            command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        case Task.EMBED:
            command += ["--runner", "pooling", "--convert", "embed"]
        case Task.RERANK:
            # Random weights in place of a head that the tiny model has not.
            command += ["--runner", "pooling", "--convert", "classify", "--load-format", "dummy"]
            command += ["--hf-overrides", '{"architectures":["LlamaForSequenceClassification"],"num_labels":1}']
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    fields = {"vllm": {"max_model_len": 512, "tool_call_parser": "hermes"}}
    return EngineProcess(command, f"vllm-{task}", EngineType.VLLM, task, secret, fields, quiet)


def wait_http(url: str, timeout_s: float) -> None:
    """Return when a server answers 200 there; raises OSError when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class GatewayBefore:
    """A gateway process before running engines, and keys for it."""

    def __init__(self, nats_url: str, secret: str, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.key = f"sk-cortex-{uuid7()}"
        self.admin_key = f"sk-cortex-{uuid7()}"
        self._nats_url = nats_url
        self._log = folder / "gateway.log"
        self._environment = os.environ | {
            "CORTEX_NATS_URL": nats_url,
            "CORTEX_SECRET_KEY": secret,
            "CORTEX_GATEWAY_PORT": str(self.port),
            "CORTEX_GATEWAY_SPOOL_DIR": str(folder / "spool"),
            **{f"CORTEX_GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, engines: Iterable[EngineProcess]) -> None:
        """Publish what the other services would, then start: the gateway is ready when it has read that."""
        asyncio.run(self._publish(list(engines)))
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "cortex_gateway"]
            self._process = subprocess.Popen(command, env=self._environment, stderr=log)
        wait_http(f"{self.url}/readyz", 30)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=20)
        sys.stdout.write(self._log.read_text() if self._log.exists() else "no log")

    async def _publish(self, engines: list[EngineProcess]) -> None:
        bus = Bus(SecretStr(self._nats_url), name="test")
        running = asyncio.create_task(bus.run())
        try:
            async with asyncio.timeout(20):
                await bus.wait_connected()
                await provision(bus.js)
                for engine in engines:
                    await _publish_engine(bus, engine)
                for key, scopes in ((self.key, ("*",)), (self.admin_key, ("*", "upstream"))):
                    await _publish_key(bus, key, scopes)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _publish_engine(bus: Bus, engine: EngineProcess) -> None:
    now = datetime.now(UTC)
    model = ModelDocumentV1.model_validate(
        {
            "aggregateversion": next_version(0),
            "id": engine.model_id,
            "name": engine.name,
            "served_model_name": engine.name,
            "aliases": [f"{engine.name}-alias"],
            "task": engine.task,
            "engine_type": engine.engine_type,
            "desired_state": DesiredState.RUNNING,
        }
        | engine.fields
    )
    replica = ReplicaDocumentV1(
        aggregateversion=next_version(0),
        id=engine.replica_id,
        model_id=engine.model_id,
        ordinal=0,
        engine_type=engine.engine_type,
        node=NodeId("test"),
        runtime=RuntimeKind.PROCESS,
        spec_hash=SPEC_HASH,
        state=ReplicaState.STARTED,
        since=now,
        endpoint=engine.url,
    )
    verdict = VerdictDocumentV1(
        aggregateversion=next_version(0),
        replica_id=engine.replica_id,
        model_id=engine.model_id,
        spec_hash=SPEC_HASH,
        endpoint=engine.url,
        verdict=Verdict.HEALTHY,
        since=now,
    )
    await KVStore[ModelDocumentV1](bus, MODELS).put(model.id, model)
    await KVStore[ReplicaDocumentV1](bus, REPLICAS).put(replica.id, replica)
    await KVStore[VerdictDocumentV1](bus, VERDICTS).put(verdict.replica_id, verdict)


async def _publish_key(bus: Bus, key: str, scopes: tuple[str, ...]) -> None:
    document = KeyDocumentV1.model_validate(
        {
            "aggregateversion": next_version(0),
            "id": uuid7(),
            "digest": sha256(key.encode()).hexdigest(),
            "name": "test",
            "scopes": scopes,
        }
    )
    await KVStore[KeyDocumentV1](bus, KEYS).put(document.id, document)
