"""Examines the whole installation: the registry's own needs, then every node."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cortex_contracts.base import NodeId
from cortex_contracts.doctor import CheckV1, CheckVerdict, ExamineResultV1, worst
from cortex_kit.clock import Clock
from cortex_registry.domain.doctor import judge_backlog, judge_clock, judge_component, no_nodes, silent_node
from cortex_registry.domain.outbox import Backlog
from cortex_registry.errors import DatabaseUnavailableError, UnavailableError
from cortex_registry.handlers.observation import Observation


class DatabaseFacts(Protocol):
    """What Postgres says of itself. Raises DatabaseUnavailableError."""

    async def clock_and_backlog(self) -> tuple[datetime, Backlog]:
        """Its time, and what waits in the outbox."""
        ...


class NodeExaminer(Protocol):
    """Asks an orchestrator to examine its node. Raises UnavailableError."""

    async def examine(self, node: NodeId) -> ExamineResultV1: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """A check and where it was made: `registry`, or a node."""

    where: str
    check: CheckV1


@dataclass(frozen=True, slots=True)
class Examination:
    """Every finding, and the gravest verdict."""

    verdict: CheckVerdict
    findings: Sequence[Finding]


class Doctor:
    """Looks and changes nothing; answers with Postgres or NATS away, too."""

    def __init__(
        self,
        readiness: Mapping[str, Callable[[], str | None]],
        database: DatabaseFacts,
        observation: Observation,
        examiner: NodeExaminer,
        clock: Clock,
    ) -> None:
        self._readiness = readiness
        self._database = database
        self._observation = observation
        self._examiner = examiner
        self._clock = clock

    async def examine(self) -> Examination:
        """All checks, nodes side by side; some seconds at most."""
        own = [Finding("registry", judge_component(name, check())) for name, check in self._readiness.items()]
        nodes = [node.id for node in self._observation.nodes]
        groups = await asyncio.gather(self._postgres(), *(self._node(node) for node in nodes))
        findings = [*own, *(finding for group in groups for finding in group)]
        if not nodes:
            findings.append(Finding("registry", no_nodes()))
        return Examination(worst(tuple(finding.check for finding in findings)), findings)

    async def _postgres(self) -> list[Finding]:
        try:
            time, backlog = await self._database.clock_and_backlog()
        except DatabaseUnavailableError:
            return []  # the readiness check says so
        clock = judge_clock("Postgres", time, self._clock.now())
        return [Finding("registry", clock), Finding("registry", judge_backlog(backlog))]

    async def _node(self, node: NodeId) -> list[Finding]:
        try:
            result = await self._examiner.examine(node)
        except UnavailableError:
            return [Finding(node, silent_node(node))]
        clock = judge_clock(node, result.time, self._clock.now())
        return [Finding(node, check) for check in (*result.checks, clock)]
