"""What this installation is able to do, which engine images it has, and how its hosts fared lately. Nothing here writes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cortex_contracts.base import NodeId
from cortex_contracts.documents import NodeDocumentV1
from cortex_contracts.enums import RuntimeKind
from cortex_contracts.images import ImagesResultV1
from cortex_kit.clock import Clock
from cortex_registry.domain.trends import HostTrend, Trends, length_of
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.observation import Observation
from cortex_registry.ports import ModelRepository

MAX_REFERENCES = 1000


class ImageLister(Protocol):
    """Asks an orchestrator for the engine images of its node. Raises UnavailableError."""

    async def images(self, node: NodeId, references: Sequence[str]) -> ImagesResultV1: ...


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that may or may not be possible here; `reason` says why not."""

    name: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class TrendRules:
    """How far back, and how far apart."""

    minutes: int
    step_s: float


class HostTrends:
    """Takes a point of every host now and then; `run` is a task of the service."""

    def __init__(self, observation: Observation, rules: TrendRules, clock: Clock) -> None:
        self._observation = observation
        self._clock = clock
        self._trends = Trends(length_of(rules.minutes, rules.step_s))
        self.rules = rules

    async def run(self) -> None:
        """For ever; from memory to memory."""
        while True:
            self._trends.record(self._clock.now(), self._observation.nodes)
            await asyncio.sleep(self.rules.step_s)

    def last(self, minutes: int) -> tuple[datetime, Sequence[HostTrend]]:
        """Since when, and by host."""
        start = self._clock.now() - timedelta(minutes=min(minutes, self.rules.minutes))
        return start, self._trends.since(start)


class Installation:
    """Queries."""

    def __init__(
        self,
        models: ModelRepository,
        observation: Observation,
        lister: ImageLister,
        features: Sequence[tuple[str, Callable[[], str | None]]],
    ) -> None:
        self._models = models
        self._observation = observation
        self._lister = lister
        self._features = tuple(features)

    @property
    def nodes(self) -> Sequence[NodeDocumentV1]:
        """Hosts that have reported."""
        return self._observation.nodes

    def features(self) -> tuple[Feature, ...]:
        """What is possible here, as settings and hosts are now."""
        nodes = self._observation.nodes
        gpus = sum(len(node.gpus) for node in nodes)
        containers = any(node.runtime is not RuntimeKind.PROCESS for node in nodes)
        found = [Feature(name, reason()) for name, reason in self._features]
        return (
            *found,
            Feature("hosts", None if nodes else "no orchestrator has reported a host yet"),
            Feature("gpus", None if gpus else "no host reports a GPU"),
            Feature("containers", None if containers else "every host runs engines as processes"),
        )

    async def images(self) -> Sequence[ImagesResultV1]:
        """By host; one that does not answer says so instead. Raises UnavailableError without the database."""
        models = await self._models.list_all(archived=True)
        named = {model.document.engine_image for model in models} - {None}
        references = sorted(str(one) for one in named)[:MAX_REFERENCES]
        nodes = [node.id for node in self._observation.nodes]
        return await asyncio.gather(*(self._of(node, references) for node in nodes))

    async def _of(self, node: NodeId, references: Sequence[str]) -> ImagesResultV1:
        try:
            return await self._lister.images(node, references)
        except UnavailableError as error:
            return ImagesResultV1(node=node, reason=error.message)
