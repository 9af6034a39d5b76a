"""A fake runtime, a tiny scriptable engine, and benches that run the contract suite on every runtime."""

import asyncio
import fcntl
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.enums import EngineType, RuntimeKind
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_orchestrator.domain.observed import Exit, Identity, Observed, Phase
from cortex_orchestrator.domain.spec import HOST, PORT, Command, ContainerSpec, Program, StopPolicy

NODE = NodeId("testnode")

ENGINE_SCRIPT = """
import http.server, os, signal, sys, threading, time
mode, host, port = sys.argv[1:4]
count = [0]
def on_term(signum, frame):
    count[0] += 1
    print("sigterm", count[0], flush=True)
    if mode == "serve":
        os._exit(0)
    if mode == "stubborn" and count[0] > 1:
        os._exit(1)
signal.signal(signal.SIGTERM, on_term)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("ENGINE_KEY", "-").encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
print("first line", flush=True)
print("mode", mode, flush=True)
if mode == "crash":
    print("error: invalid argument: --nonsense", flush=True)
    os._exit(3)
if mode == "chatty":
    for number in range(20000):
        print("line", number, "x" * 60)
    sys.stdout.flush()
if mode == "ticking":
    for number in range(40):
        print("tick", number, flush=True)
        time.sleep(0.05)
    os._exit(0)
if mode == "oom":
    hoard = []
    while True:
        hoard.append(bytearray(8 * 1024 * 1024))
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


def engine_spec(mode: str = "serve", *, program: str = "python:3.11-slim", **changes: object) -> ContainerSpec:
    """A replica whose engine is the script; the same words work as a process and in a container."""
    command = Command(
        argv=(mode, HOST, PORT),
        api_key_env="ENGINE_KEY",
        env={"PLAIN": "value"},
        entrypoint=("python3", "-I", "-u", "-c", ENGINE_SCRIPT),
    )
    spec = ContainerSpec(
        model_id=ModelId(uuid7()),
        ordinal=0,
        engine_type=EngineType.LLAMACPP,
        node=NODE,
        program=Program(program),
        command=command,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


@dataclass
class FakeRuntime:
    """EngineRuntime in memory. The first word of a spec's argv is what the engine does."""

    replicas: dict[ReplicaId, Observed] = field(default_factory=dict[ReplicaId, Observed])
    modes: dict[ReplicaId, str] = field(default_factory=dict[ReplicaId, str])
    calls: list[tuple[str, ReplicaId]] = field(default_factory=list[tuple[str, ReplicaId]])
    unreachable: bool = False
    refuse_start: DomainError | None = None
    hints: "asyncio.Queue[ReplicaId | None]" = field(default_factory=asyncio.Queue)
    lines: tuple[str, ...] = ("first line", "mode x")
    default_mode: str = "serve"
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    written: "asyncio.Queue[Sequence[str]]" = field(default_factory=asyncio.Queue)

    @property
    def kind(self) -> RuntimeKind:
        return RuntimeKind.PROCESS

    async def list_owned(self) -> Sequence[Observed]:
        self._reach()
        return tuple(self.replicas.values())

    async def create(self, spec: ContainerSpec, secrets: Mapping[str, str], restarts: int = 0) -> Observed:
        self._reach()
        self.calls.append(("create", spec.replica_id))
        present = self.replicas.get(spec.replica_id)
        if present is not None:
            if present.identity.spec_hash != spec.hash:
                raise DomainError("name_taken", "taken", status=409)
            return present
        identity = Identity(spec.model_id, spec.ordinal, spec.engine_type, spec.hash, restarts, spec.stop_timeout_s)
        seen = Observed(identity, spec.name, uuid7(), Phase.CREATED, gpus=spec.gpus)
        self.replicas[spec.replica_id] = seen
        known = ("serve", "crash", "stubborn", "deaf", "oom")
        self.modes[spec.replica_id] = spec.command.argv[0] if spec.command.argv[0] in known else self.default_mode
        return seen

    async def start(self, replica_id: ReplicaId) -> Observed:
        self._reach()
        self.calls.append(("start", replica_id))
        if replica_id not in self.replicas:
            raise DomainError("not_created", "not created")
        if self.refuse_start is not None:
            del self.replicas[replica_id]
            raise self.refuse_start
        seen = self.replicas[replica_id] = replace(
            self.replicas[replica_id], phase=Phase.RUNNING, endpoint="http://127.0.0.1:1", started_at=self.now()
        )
        if self.modes[replica_id] == "crash":
            self.crash(replica_id, 3)
        if self.modes[replica_id] == "oom":
            self.crash(replica_id, 137, oom_killed=True)
        return seen

    def crash(self, replica_id: ReplicaId, code: int, *, oom_killed: bool = False) -> None:
        """Let the engine end by itself."""
        self.replicas[replica_id] = replace(
            self.replicas[replica_id],
            phase=Phase.EXITED,
            endpoint=None,
            exit=Exit(code, oom_killed),
            finished_at=self.now(),
        )
        self.hints.put_nowait(replica_id)

    async def stop(self, replica_id: ReplicaId, policy: StopPolicy) -> Exit:
        self._reach()
        self.calls.append(("stop", replica_id))
        seen = self.replicas.get(replica_id)
        if seen is None:
            return Exit(None)
        if seen.phase is Phase.RUNNING:
            second = policy.second_term_s is not None
            code = {"serve": 0, "stubborn": 1 if second else 137}.get(self.modes[replica_id], 137)
            self.crash(replica_id, code)
        return self.replicas[replica_id].exit or Exit(None)

    async def remove(self, replica_id: ReplicaId) -> None:
        self._reach()
        self.calls.append(("remove", replica_id))
        self.replicas.pop(replica_id, None)

    async def logs(self, replica_id: ReplicaId, tail: int) -> Sequence[str]:
        self._reach()
        return self.lines[-tail:] if replica_id in self.replicas else ()

    async def follow(self, replica_id: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """The lines that are there, then what a test puts into `written`, until the replica ends."""
        self._reach()
        if tail and replica_id in self.replicas:
            yield self.lines[-tail:]
        while replica_id in self.replicas and self.replicas[replica_id].phase is not Phase.EXITED:
            try:
                async with asyncio.timeout(0.02):
                    yield await self.written.get()
            except TimeoutError:
                self._reach()

    async def watch(self) -> AsyncIterator[ReplicaId | None]:
        while True:
            yield await self.hints.get()

    async def close(self) -> None:
        return None

    def _reach(self) -> None:
        if self.unreachable:
            raise TransientError("the runtime is away")


@pytest.fixture
def fake_runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def make_spec() -> Callable[..., ContainerSpec]:
    return engine_spec


@pytest.fixture
def process_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}


@pytest.fixture
def python() -> str:
    return sys.executable


@pytest.fixture
def models_dir(tmp_path: Path, smollm2_gguf: Path) -> Path:
    """A models folder with a real model in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    try:
        os.link(smollm2_gguf, folder / "smollm2.gguf")
    except OSError:
        (folder / "smollm2.gguf").write_bytes(smollm2_gguf.read_bytes())
    return folder


@pytest.fixture(scope="session")
def docker_engine_required() -> Iterator[None]:
    """Skip without a Docker engine, unless the environment demands one; removes the tests' network at the end."""
    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except DockerException as error:
        if os.environ.get("CORTEX_REQUIRE_DOCKER") == "1":
            pytest.fail(f"CORTEX_REQUIRE_DOCKER=1, but there is no Docker engine: {error}")
        pytest.skip("no Docker engine")
    yield
    for network in client.networks.list(names=["^cortex-engines-test$"]):
        network.remove()
    client.close()


@pytest.fixture(scope="module")
def swarm_required(docker_engine_required: None) -> Iterator[None]:
    """This engine as a swarm of one node, left again if it was none before. One session at a time uses it.

    No longer than a module: an engine that is a swarm treats the networks of other tests differently.
    """
    client = docker.from_env(timeout=60)
    with (Path(tempfile.gettempdir()) / "cortex-swarm-test.lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # waits for another session: the timeout of the test fails it, nothing skips it
        started = client.info()["Swarm"]["LocalNodeState"] == "inactive"
        if started:
            client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
        yield
        for network in client.networks.list(names=["^cortex-swarm-test$"]):
            network.remove()
        if started:
            client.swarm.leave(force=True)
    client.close()
