"""Removes this node's replica documents after its engines were stopped, so that nobody shows a state from a past run."""

import asyncio

from pydantic import SecretStr

from cortex_contracts.base import NodeId
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.streams import REPLICAS
from cortex_kit.bus import Bus
from cortex_kit.kv import KVStore, KVView


async def forget_replicas(nats_url: SecretStr, node: NodeId, *, timeout_s: float) -> int:
    """Delete the documents of one node; returns how many.

    Raises:
        TransientError: NATS went away meanwhile.
        TimeoutError: NATS could not be reached in time. The next orchestrator of the node removes them then.
    """
    bus = Bus(nats_url, name="orchestrator-stop-engines")
    view = KVView(bus, REPLICAS, ReplicaDocumentV1)
    store = KVStore[ReplicaDocumentV1](bus, REPLICAS)
    tasks = [asyncio.ensure_future(bus.run()), asyncio.ensure_future(view.run())]
    try:
        async with asyncio.timeout(timeout_s):
            await view.wait_synced()
            mine = [key for key, document in view.items.items() if document.node == node]
            for key in mine:
                await store.delete(key)
        return len(mine)
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
