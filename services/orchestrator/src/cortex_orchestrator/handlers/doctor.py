"""Examines this node: asks, judges, never changes anything."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_contracts.base import NodeId
from cortex_contracts.doctor import CheckV1, ExamineResultV1
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.domain.doctor import (
    Disk,
    failed,
    judge_disk,
    judge_docker,
    judge_gpus,
    judge_memory,
    judge_models,
    judge_program,
)
from cortex_orchestrator.ports import DockerExaminer, GpuProbe

DEADLINE_S = 8.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is to look at. `docker` is None with the process runtime, whose programs are given instead."""

    node: NodeId
    models: Path | None
    folders: Sequence[tuple[str, Path]]
    docker: DockerExaminer | None
    programs: Callable[[], Awaitable[Mapping[str, str | None]]]
    offline: bool


@dataclass(frozen=True, slots=True)
class Measures:
    """Blocking looks at the host, run in threads."""

    disks: Callable[[Sequence[tuple[str, Path]]], tuple[Disk, ...]]
    memory: Callable[[], tuple[int, int]]
    models: Callable[[Path], int | None]


class Doctor:
    """Examines one node. Each look has a deadline; one that fails is a check that failed."""

    def __init__(self, ground: Ground, measures: Measures, gpus: GpuProbe, clock: Clock) -> None:
        self._ground = ground
        self._measures = measures
        self._gpus = gpus
        self._clock = clock

    async def examine(self) -> ExamineResultV1:
        """Every check of this node; at most some seconds."""
        groups = await asyncio.gather(self._runtime(), self._host())
        checks = tuple(check for group in groups for check in group)
        return ExamineResultV1(node=self._ground.node, time=self._clock.now(), checks=checks)

    async def _runtime(self) -> tuple[CheckV1, ...]:
        docker = self._ground.docker
        if docker is None:
            programs = await self._ground.programs()
            return tuple(judge_program(engine, path) for engine, path in programs.items())
        try:
            async with asyncio.timeout(DEADLINE_S):
                facts = await docker.examine()
        except (TransientError, DomainError, TimeoutError) as error:
            fix = "Start Docker, and let the orchestrator reach it: CORTEX_ORCHESTRATOR_DOCKER_URL, or the socket's group."
            return (failed("docker", f"the Docker engine does not answer: {error or 'in time'}", fix),)
        gpus = await asyncio.to_thread(self._gpus.gpus)
        return judge_docker(facts, gpus=len(gpus), offline=self._ground.offline)

    async def _host(self) -> tuple[CheckV1, ...]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.to_thread(self._look)
        except (TimeoutError, OSError) as error:
            fix = "Look at the host's disks: a network file system that hangs does this."
            return (failed("host", f"the host could not be examined: {error or 'not in time'}", fix),)

    def _look(self) -> tuple[CheckV1, ...]:
        available, total = self._measures.memory()
        root = self._ground.models
        return (
            judge_gpus([gpu.name for gpu in self._gpus.gpus()]),
            judge_memory(available, total),
            *(judge_disk(disk) for disk in self._measures.disks(self._ground.folders)),
            judge_models(None if root is None else str(root), None if root is None else self._measures.models(root)),
        )
