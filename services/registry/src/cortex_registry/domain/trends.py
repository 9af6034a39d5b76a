"""A short history of hosts, in memory: a ring per host, filled at even steps. No I/O."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_contracts.documents import NodeDocumentV1

MAX_HOSTS = 256


@dataclass(frozen=True, slots=True)
class GpuPoint:
    """One GPU at one moment; memory in bytes."""

    index: int
    memory_free: int
    memory_total: int
    utilization: int | None


@dataclass(frozen=True, slots=True)
class HostPoint:
    """One host at one moment, as its orchestrator had reported it."""

    at: datetime
    cpu_percent: float | None
    memory_available: int
    memory_promised: int
    gpus: tuple[GpuPoint, ...]


@dataclass(frozen=True, slots=True)
class HostTrend:
    """The points of one host, the oldest first."""

    node: str
    hostname: str
    cpu_count: int
    memory_total: int
    points: tuple[HostPoint, ...]


class Trends:
    """Bounded whatever is told: `length` points a host, `MAX_HOSTS` hosts; a host that is gone ages away."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._rings: dict[str, deque[HostPoint]] = {}
        self._hosts: dict[str, NodeDocumentV1] = {}

    def record(self, at: datetime, nodes: Sequence[NodeDocumentV1]) -> None:
        """What the hosts are like at a moment."""
        for node in nodes[:MAX_HOSTS]:
            self._hosts[node.id] = node
            self._rings.setdefault(node.id, deque(maxlen=self._length)).append(point_of(at, node))
        present = {node.id for node in nodes}
        for gone in [known for known in self._rings if known not in present]:
            self._rings[gone].popleft()  # as fast as it would have grown
            if not self._rings[gone]:
                del self._rings[gone], self._hosts[gone]

    def since(self, start: datetime) -> tuple[HostTrend, ...]:
        """What is remembered of that time, by host."""
        return tuple(
            HostTrend(
                node,
                self._hosts[node].hostname,
                self._hosts[node].cpu_count,
                self._hosts[node].memory_total,
                tuple(point for point in ring if point.at >= start),
            )
            for node, ring in sorted(self._rings.items())
        )


def point_of(at: datetime, node: NodeDocumentV1) -> HostPoint:
    """A host's document as a point."""
    gpus = tuple(
        GpuPoint(gpu.index, gpu.memory_free, gpu.memory_total, gpu.utilization)
        for gpu in sorted(node.gpus, key=lambda gpu: gpu.index)
    )
    return HostPoint(at, node.cpu_percent, node.memory_available, node.promised_memory.get("cpu", 0), gpus)


def length_of(minutes: int, step_s: float) -> int:
    """How many points a ring needs."""
    return int(timedelta(minutes=minutes).total_seconds() // step_s) + 1
