"""A bounded history of hosts."""

from datetime import UTC, datetime, timedelta

from cortex_contracts.base import NodeId
from cortex_contracts.documents import GpuInfo, NodeDocumentV1
from cortex_contracts.enums import RuntimeKind
from cortex_registry.domain.trends import Trends, length_of

START = datetime(2026, 11, 22, tzinfo=UTC)


def node(name: str, available: int = 80) -> NodeDocumentV1:
    gpu = GpuInfo(index=0, uuid="GPU-0", name="g", memory_total=10, memory_free=4, utilization=55)
    return NodeDocumentV1(
        aggregateversion=1,
        id=NodeId(name),
        hostname=f"host-{name}",
        runtime=RuntimeKind.DOCKER,
        cpu_count=2,
        memory_total=100,
        memory_available=available,
        cpu_percent=12.5,
        gpus=(gpu,),
        promised_memory={"cpu": 7},
    )


def at(step: int) -> datetime:
    return START + timedelta(seconds=15 * step)


def test_a_ring_keeps_the_last_points_and_no_more() -> None:
    trends = Trends(length_of(1, 15))
    for step in range(100):
        trends.record(at(step), [node("a", available=step)])
    (trend,) = trends.since(START)
    assert [point.memory_available for point in trend.points] == [95, 96, 97, 98, 99]
    point = trend.points[-1]
    assert (point.cpu_percent, point.memory_promised, point.gpus[0].utilization) == (12.5, 7, 55)
    assert [point.at for point in trends.since(at(98))[0].points] == [at(98), at(99)]


def test_a_host_that_is_gone_ages_away() -> None:
    trends = Trends(5)
    for step in range(3):
        trends.record(at(step), [node("a"), node("b")])
    for step in range(3, 6):
        assert {trend.node for trend in trends.since(START)} == {"a", "b"}
        trends.record(at(step), [node("a")])
    assert {trend.node for trend in trends.since(START)} == {"a"}
