"""When the node's document is worth a write."""

import asyncio
from typing import Any

import pytest

from cortex_contracts.base import NodeId
from cortex_contracts.documents import GpuInfo, NodeDocumentV1
from cortex_contracts.enums import RuntimeKind
from cortex_orchestrator.handlers.node import NodeReporter, has_new_inventory, is_news

NODE = NodeId("testnode")


def node(available: int = 80, gpus: int = 0) -> NodeDocumentV1:
    return NodeDocumentV1(
        id=NODE,
        hostname="h",
        runtime=RuntimeKind.PROCESS,
        cpu_count=2,
        memory_total=100,
        memory_available=available,
        gpus=tuple(
            GpuInfo(index=index, uuid=f"GPU-{index}", name="g", memory_total=1, memory_free=1) for index in range(gpus)
        ),
        aggregateversion=0,
    )


def busy(memory_free: int, utilization: int) -> NodeDocumentV1:
    idle = node(gpus=1)
    return idle.model_copy(
        update={
            "gpus": tuple(
                gpu.model_copy(update={"memory_free": memory_free, "utilization": utilization}) for gpu in idle.gpus
            )
        }
    )


@pytest.mark.parametrize(
    ("old", "new", "news", "inventory"),
    [
        (None, node(), True, True),
        (node(), node(78), False, False),
        (node(), node(60), True, False),
        (node(), node().model_copy(update={"cpu_percent": 8.0}), False, False),
        (node(), node().model_copy(update={"cpu_percent": 30.0}), True, False),
        (node(gpus=1), busy(1, 0), False, False),
        (node(gpus=1), busy(0, 0), True, False),
        (node(gpus=1), busy(1, 90), True, False),
        (node(), node(gpus=1), True, True),
    ],
)
def test_only_a_real_change_of_the_node_is_news(
    old: NodeDocumentV1 | None, new: NodeDocumentV1, news: bool, inventory: bool
) -> None:
    assert (is_news(old, new), has_new_inventory(old, new)) == (news, inventory)


async def test_the_node_is_written_when_the_lease_is_ours_and_again_after_a_reconnect(stage: Any) -> None:
    store = stage.store
    reporter = NodeReporter(node, store, store, stage.lease, interval_s=0.01)
    task = asyncio.ensure_future(reporter.run())
    try:
        async with asyncio.timeout(5):
            while not store.events:
                await asyncio.sleep(0.005)
            first = store.documents[NODE].aggregateversion
            reporter.reconnected()
            while store.documents[NODE].aggregateversion == first:
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
