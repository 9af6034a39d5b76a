"""What stands around a proxy under test: engines, load, and for the gateway a real NATS with real documents."""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId, NodeId, replica_id
from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind, Verdict
from cortex_contracts.streams import KEYS, MODELS, REPLICAS, VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.clock import next_version
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer, free_port, wait_for_port

HERE = Path(__file__).parent
MODEL = "m"


@dataclass(frozen=True)
class Cores:
    """CPUs of the proxy, and of everything else."""

    proxy: int
    others: int

    def pin(self, command: Sequence[str | Path], core: int) -> list[str]:
        return ["taskset", "-c", str(core), *map(str, command)]


class Tools:
    """The C programs of this folder, compiled once into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.engine = folder / "engine"
        self.load = folder / "load"
        for program in (self.engine, self.load):
            source = HERE / f"{program.name}.c"
            if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
                subprocess.run(["cc", "-O2", "-w", "-o", program, source], check=True)


class Engines:
    """Four replicas of one model, in one process."""

    def __init__(self, tools: Tools, cores: Cores, replicas: int = 4) -> None:
        self.ports = [free_port() for _ in range(replicas)]
        command = cores.pin([tools.engine, *map(str, self.ports)], cores.others)
        self._process = subprocess.Popen(command)
        wait_for_port(self.ports[-1], self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class GatewayWorld:
    """NATS with the documents that the registry, the orchestrator and health would have written."""

    def __init__(self, cores: Cores, engine_ports: Sequence[int], keys: int = 1000) -> None:
        self._secret_key = secrets.token_hex(32)
        self.folder = tempfile.TemporaryDirectory(prefix="cortex-bench-")
        self.api_key = f"ctx-{secrets.token_hex(16)}"
        self.nats = NatsServer()
        self.nats.start()
        pin = ["taskset", "-a", "-p", "-c", str(cores.others), str(self.nats_pid)]
        subprocess.run(pin, check=True, capture_output=True)
        asyncio.run(self._fill(engine_ports, keys))

    def environment(self, port: int, **settings: str) -> dict[str, str]:
        """Environment of one gateway process."""
        return os.environ | {
            "CORTEX_NATS_URL": self.nats.url,
            "CORTEX_SECRET_KEY": self._secret_key,
            "CORTEX_LOG_LEVEL": "warning",
            "CORTEX_GATEWAY_PORT": str(port),
            "CORTEX_GATEWAY_SPOOL_DIR": f"{self.folder.name}/spool",
            "CORTEX_GATEWAY_MAX_REQUESTS_PER_CONNECTION": "100000000",
            **{f"CORTEX_GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }

    @property
    def nats_pid(self) -> int:
        process = self.nats._process
        assert process is not None
        return process.pid

    def command(self) -> list[str]:
        return [sys.executable, "-m", "cortex_gateway"]

    def close(self) -> None:
        self.nats.close()
        self.folder.cleanup()

    async def _fill(self, engine_ports: Sequence[int], keys: int) -> None:
        bus = Bus(SecretStr(self.nats.url), name="bench")
        running = asyncio.create_task(bus.run())
        async with asyncio.timeout(60):
            await bus.wait_connected()
            await provision(bus.js)
            await self._put_documents(bus, engine_ports, keys)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _put_documents(self, bus: Bus, engine_ports: Sequence[int], keys: int) -> None:
        model = ModelDocumentV1.model_validate(
            {
                "aggregateversion": next_version(0),
                "id": ModelId(uuid7()),
                "name": MODEL,
                "served_model_name": MODEL,
                "engine_type": EngineType.VLLM,
                "desired_state": DesiredState.RUNNING,
            }
        )
        await KVStore[ModelDocumentV1](bus, MODELS).put(model.id, model)
        for ordinal, port in enumerate(engine_ports):
            await self._put_replica(bus, model.id, ordinal, f"http://127.0.0.1:{port}")
        for number in range(keys):
            secret = self.api_key if number == 0 else secrets.token_hex(16)
            key = KeyDocumentV1.model_validate(
                {
                    "aggregateversion": next_version(0),
                    "id": KeyId(uuid7()),
                    "digest": sha256(secret.encode()).hexdigest(),
                    "name": f"key {number}",
                    **KEY_LIMITS,
                }
            )
            await KVStore[KeyDocumentV1](bus, KEYS).put(key.id, key)

    async def _put_replica(self, bus: Bus, model: ModelId, ordinal: int, endpoint: str) -> None:
        since = datetime.now(UTC)
        replica = ReplicaDocumentV1(
            aggregateversion=next_version(0),
            id=replica_id(model, ordinal),
            model_id=model,
            ordinal=ordinal,
            engine_type=EngineType.VLLM,
            node=NodeId("bench"),
            runtime=RuntimeKind.PROCESS,
            spec_hash="bench",
            state=ReplicaState.STARTED,
            since=since,
            endpoint=endpoint,
        )
        verdict = VerdictDocumentV1(
            aggregateversion=next_version(0),
            replica_id=replica.id,
            model_id=model,
            spec_hash="bench",
            endpoint=endpoint,
            verdict=Verdict.HEALTHY,
            since=since,
        )
        await KVStore[ReplicaDocumentV1](bus, REPLICAS).put(replica.id, replica)
        await KVStore[VerdictDocumentV1](bus, VERDICTS).put(verdict.replica_id, verdict)


KEY_LIMITS: dict[str, object] = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 1_000_000_000_000,
    "max_concurrent_streams": 100_000,
    "tokens_per_month": 1_000_000_000_000_000,
}
"""Limits of every key, high enough that the load never meets them: what counts is that they are checked."""
