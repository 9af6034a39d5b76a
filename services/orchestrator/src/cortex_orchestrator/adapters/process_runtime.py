"""Engines as processes on this machine's loopback, each under a shim that outlives the orchestrator."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM, SIGUSR1
from typing import TypeVar, cast

from cortex_contracts.base import ReplicaId
from cortex_contracts.enums import RuntimeKind
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters import shim
from cortex_orchestrator.adapters.log_follower import LogFollower
from cortex_orchestrator.adapters.replica_folder import ReplicaFolder
from cortex_orchestrator.domain.observed import Exit, Observed, Phase
from cortex_orchestrator.domain.spec import HOST, PORT, ContainerSpec, StopPolicy

log = get_logger()
ResultT = TypeVar("ResultT")

LOOPBACK = "127.0.0.1"
SHIM_START_TIMEOUT_S = 20.0
FILES_TIMEOUT_S = 10.0
POLL_S = 0.05
FOLLOW_POLL_S = 0.2
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "HF_HOME",
    "HF_ENDPOINT",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
)
"""All that an engine sees of our own environment; our secrets are not among them."""


class ProcessRuntime:
    """EngineRuntime over child processes. `state_dir` holds one folder a replica; `environment` is our own."""

    def __init__(
        self,
        state_dir: Path,
        environment: Mapping[str, str],
        *,
        log_bytes: int = 16 * 1024 * 1024,
        watch_s: float = 0.5,
    ) -> None:
        self._engines = state_dir / "engines"
        self._environment = {name: environment[name] for name in INHERITED if name in environment}
        self._log_bytes = log_bytes
        self._watch_s = watch_s
        self._secrets: dict[ReplicaId, dict[str, str]] = {}

    @property
    def kind(self) -> RuntimeKind:
        return RuntimeKind.PROCESS

    async def list_owned(self) -> Sequence[Observed]:
        """Every replica with a folder."""
        return await _blocking(self._observe_all)

    async def create(self, spec: ContainerSpec, secrets: Mapping[str, str], restarts: int = 0) -> Observed:
        """Write the folder. The environment, secrets included, stays in memory until `start`."""
        folder = self._folder(spec.replica_id)
        present = await _blocking(folder.observe)
        if present is not None:
            if present.identity.spec_hash != spec.hash:
                raise DomainError("name_taken", f"{spec.name} exists with another specification", status=409)
            if present.phase is not Phase.CREATED:
                return present
            await _blocking(folder.remove)
        self._secrets[spec.replica_id] = {**self._environment, **_gpu_environment(spec), **spec.command.env, **secrets}
        await _blocking(lambda: folder.create(self._launch(spec, restarts)))
        return await self._observed(spec.replica_id)

    async def start(self, replica_id: ReplicaId) -> Observed:
        """Start the shim and wait until it reports the engine's process."""
        folder = self._folder(replica_id)
        present = await _blocking(folder.observe)
        if present is not None and present.phase is Phase.RUNNING:
            return present
        environment = self._secrets.pop(replica_id, None)
        if present is None or present.phase is not Phase.CREATED or environment is None:
            raise DomainError("not_created", f"replica {replica_id} has not been created by this orchestrator")
        try:
            await self._spawn_shim(folder, environment)
            return await self._wait_started(folder)
        except (DomainError, TransientError):
            await self.remove(replica_id)
            raise
        except OSError as error:
            await self.remove(replica_id)
            raise TransientError(f"the engine's shim cannot be started: {error}") from error

    async def stop(self, replica_id: ReplicaId, policy: StopPolicy) -> Exit:
        """SIGTERM, perhaps once more, then SIGKILL to the engine's whole process group."""
        folder = self._folder(replica_id)
        running = folder.running()
        if running is None:
            return Exit(None)
        if running.signal(SIGTERM):
            first = policy.second_term_s if policy.second_term_s is not None else policy.deadline_s
            if not await _ended(folder, first) and policy.second_term_s is not None:
                running.signal(SIGTERM)
                await _ended(folder, policy.deadline_s - first)
            if running.alive and not folder.exit():
                log.warning("engine_killed", replica_id=replica_id, reason="it did not stop in time")
                running.signal(SIGUSR1)
        if not await _ended(folder, 5.0):
            running.destroy()
        ended = folder.exit()
        return ended[0] if ended else Exit(None)

    async def remove(self, replica_id: ReplicaId) -> None:
        """Kill what still runs, then drop the folder."""
        folder = self._folder(replica_id)
        self._secrets.pop(replica_id, None)
        running = folder.running()
        if running is not None:
            if running.signal(SIGUSR1):
                await _ended(folder, 5.0)
            running.destroy()
        await _blocking(folder.remove)

    async def logs(self, replica_id: ReplicaId, tail: int) -> Sequence[str]:
        return await _blocking(lambda: self._folder(replica_id).tail(tail))

    async def follow(self, replica_id: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """Looks at the log file five times a second."""
        follower = LogFollower(self._folder(replica_id))
        try:
            if history := await _blocking(lambda: follower.begin(tail)):
                yield history
            while (lines := await _blocking(follower.read)) is not None:
                if lines:
                    yield lines
                else:
                    await asyncio.sleep(FOLLOW_POLL_S)
        finally:
            follower.close()

    async def watch(self) -> AsyncIterator[ReplicaId | None]:
        """Looks twice a second: an end, a start or a removal each give one hint."""
        known: dict[ReplicaId, tuple[str, Phase]] = {}
        while True:
            now = {seen.replica_id: (seen.incarnation, seen.phase) for seen in await self.list_owned()}
            for replica in sorted(known.keys() | now.keys()):
                if known.get(replica) != now.get(replica):
                    yield replica
            known = now
            await asyncio.sleep(self._watch_s)

    async def close(self) -> None:
        """Nothing is held: the engines are not ours to end."""
        self._secrets.clear()

    def _folder(self, replica_id: ReplicaId) -> ReplicaFolder:
        return ReplicaFolder(self._engines / replica_id)

    def _observe_all(self) -> Sequence[Observed]:
        if not self._engines.is_dir():
            return ()
        found = (ReplicaFolder(path).observe() for path in sorted(self._engines.iterdir()))
        return tuple(seen for seen in found if seen is not None)

    async def _observed(self, replica_id: ReplicaId) -> Observed:
        seen = await _blocking(self._folder(replica_id).observe)
        if seen is None:
            raise TransientError(f"the state folder of replica {replica_id} vanished")
        return seen

    def _launch(self, spec: ContainerSpec, restarts: int) -> dict[str, object]:
        port = _free_port(self._taken_ports())
        values = {HOST: LOOPBACK, PORT: str(port)}
        command = spec.command
        words = (spec.program.reference, *(command.entrypoint or ())[1:], *command.argv)
        return {
            "name": spec.name,
            "incarnation": uuid7(),
            "created_at": time.time(),
            "labels": spec.labels(restarts),
            "argv": [values.get(word, word) for word in words],
            "port": port,
            "gpus": list(spec.gpus),
            "log_bytes": self._log_bytes,
            "lock_memory": command.lock_memory,
        }

    def _taken_ports(self) -> set[int]:
        """Ports promised to engines that may not have bound them yet."""
        folders = self._engines.iterdir() if self._engines.is_dir() else ()
        launches = (ReplicaFolder(path).launch() for path in folders)
        return {cast(int, launch["port"]) for launch in launches if launch is not None}

    async def _spawn_shim(self, folder: ReplicaFolder, environment: Mapping[str, str]) -> None:
        """The first process of the shim detaches and ends; waiting for it leaves no zombie behind."""
        complaints = folder.path / "shim.log"
        with complaints.open("ab") as stderr:
            launcher = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(Path(shim.__file__)),
                str(folder.path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=dict(environment),
                cwd=folder.path,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(SHIM_START_TIMEOUT_S):
                code = await launcher.wait()
        except TimeoutError as error:
            launcher.kill()
            raise TransientError("the engine's shim did not start in time") from error
        if code != 0:
            text = complaints.read_text(errors="replace").strip().splitlines()
            raise DomainError("engine_start_failed", f"the engine's shim ended at once: {text[-1] if text else code}")

    async def _wait_started(self, folder: ReplicaFolder) -> Observed:
        deadline = asyncio.get_running_loop().time() + SHIM_START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            seen = await _blocking(folder.observe)
            if seen is not None and seen.phase is Phase.RUNNING:
                return seen
            if seen is not None and seen.phase is Phase.EXITED:
                return self._ended_at_once(folder, seen)
            await asyncio.sleep(POLL_S)
        raise TransientError("the engine's shim reported no engine in time")

    def _ended_at_once(self, folder: ReplicaFolder, seen: Observed) -> Observed:
        """An engine that ran and ended is a crash to be examined; one that never ran is a failed start."""
        if seen.exit is not None and seen.exit.code == 127 and folder.running() is None:
            lines = folder.tail(1)
            raise DomainError("engine_start_failed", lines[-1] if lines else "the engine did not start")
        return seen


def _gpu_environment(spec: ContainerSpec) -> dict[str, str]:
    if not spec.gpus:
        return {}
    devices = ",".join(str(index) for index in spec.gpus)
    # NVML counts by bus; CUDA would put the fastest first.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices, "GGML_VK_VISIBLE_DEVICES": devices}


def _free_port(taken: set[int]) -> int:
    """A port that nobody listens on now and that no other engine was promised."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
    raise TransientError("no free port on 127.0.0.1")


async def _ended(folder: ReplicaFolder, timeout_s: float) -> bool:
    """Wait for exit.json or for the shim to be gone."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        running = folder.running()
        if folder.exit() is not None or running is None or not running.alive:
            return True
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(POLL_S)


async def _blocking(call: Callable[[], ResultT]) -> ResultT:
    """Small file work off the event loop, with a deadline: the state folder may lie on a slow disk."""
    try:
        async with asyncio.timeout(FILES_TIMEOUT_S):
            return await asyncio.to_thread(call)
    except (OSError, TimeoutError) as error:
        raise TransientError(f"the state folder cannot be used: {error}") from error
