"""The whole at a glance, from what is observed and what was recorded. Nothing here writes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cortex_contracts.documents import GpuInfo, NodeDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import ReplicaState, Verdict
from cortex_kit.clock import Clock
from cortex_registry.handlers.observation import Observation, Observed
from cortex_registry.ports import ModelRepository

CPU = "cpu"
MAX_MODELS = 1000
_ALIVE = (ReplicaState.STARTING, ReplicaState.STARTED, ReplicaState.DRAINING)


@dataclass(frozen=True, slots=True)
class ModelThroughput:
    """What one model did in a window."""

    model: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    ttft_ms_p50: float | None
    duration_ms_p50: float | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, what is promised of it, and who runs there."""

    node: NodeDocumentV1
    info: GpuInfo
    promised: int
    replicas: tuple[ReplicaDocumentV1, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """One host, and how much runs there."""

    node: NodeDocumentV1
    promised_memory: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Load:
    """Sums over what healthy engines said at their last probes; those that said nothing are not in it."""

    slots_total: int
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything counted."""

    models: Mapping[str, int]
    replicas: Mapping[str, int]
    upstreams: Mapping[str, int]
    load: Load
    hosts: tuple[Host, ...]
    gpus: tuple[Gpu, ...]


class Throughputs(Protocol):
    """Usage records of the last minutes. Raises DatabaseUnavailableError."""

    async def since(self, start: datetime, limit: int) -> Sequence[ModelThroughput]:
        """By model, most requests first."""
        ...


class Overview:
    """Queries."""

    def __init__(
        self, models: ModelRepository, observation: Observation, throughputs: Throughputs, *, clock: Clock
    ) -> None:
        self._models = models
        self._observation = observation
        self._throughputs = throughputs
        self._clock = clock

    async def summary(self) -> Summary:
        """Raises UnavailableError."""
        observed = [self._observation.observe(model) for model in await self._models.list_all()]
        states = Counter(one.state.state.value if one.state is not None else "unknown" for one in observed)
        return Summary(
            models=dict(states),
            replicas=dict(Counter(replica.state.value for replica in self._observation.replicas)),
            upstreams=_verdicts(observed),
            load=_load(observed),
            hosts=self.hosts(),
            gpus=self.gpus(),
        )

    async def throughput(self, window: timedelta) -> tuple[datetime, Sequence[ModelThroughput]]:
        """Since when, and by model; raises UnavailableError."""
        start = self._clock.now() - window
        return start, await self._throughputs.since(start, MAX_MODELS)

    def gpus(self) -> tuple[Gpu, ...]:
        """By host and index."""
        return tuple(
            Gpu(node, info, node.promised_memory.get(info.uuid, 0), self._on(node, info.index))
            for node in self._observation.nodes
            for info in sorted(node.gpus, key=lambda gpu: gpu.index)
        )

    def hosts(self) -> tuple[Host, ...]:
        """By id."""
        return tuple(
            Host(node, node.promised_memory.get(CPU, 0), len(self._on(node, None))) for node in self._observation.nodes
        )

    def _on(self, node: NodeDocumentV1, gpu: int | None) -> tuple[ReplicaDocumentV1, ...]:
        found = (
            replica
            for replica in self._observation.replicas
            if replica.node == node.id and replica.state in _ALIVE and (gpu is None or gpu in replica.gpus)
        )
        return tuple(sorted(found, key=lambda replica: replica.id))


def _verdicts(observed: Sequence[Observed]) -> dict[str, int]:
    """Of everything that is started: by verdict, and `unprobed`."""
    return dict(
        Counter(
            status.verdict.verdict.value if status.verdict is not None else "unprobed"
            for one in observed
            for status in one.replicas
            if status.replica.state is ReplicaState.STARTED
        )
    )


def _load(observed: Sequence[Observed]) -> Load:
    loads = [
        status.verdict.load
        for one in observed
        for status in one.replicas
        if status.verdict is not None and status.verdict.verdict is Verdict.HEALTHY
    ]
    return Load(
        slots_total=sum(load.slots_total or 0 for load in loads),
        running=sum(load.running or 0 for load in loads),
        waiting=sum(load.waiting or 0 for load in loads),
    )
