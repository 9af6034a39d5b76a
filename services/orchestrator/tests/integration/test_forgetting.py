"""A stopped node leaves no document behind; other nodes' documents stay."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, RuntimeKind
from cortex_contracts.streams import REPLICAS
from cortex_kit.bus import Bus
from cortex_kit.kv import KVStore
from cortex_kit.provision import provision
from cortex_orchestrator.adapters.forgetting import forget_replicas

pytestmark = pytest.mark.integration


def document(model: str, node: str) -> ReplicaDocumentV1:
    return ReplicaDocumentV1(
        aggregateversion=1,
        id=replica_id(ModelId(model), 0),
        model_id=ModelId(model),
        ordinal=0,
        engine_type=EngineType.LLAMACPP,
        node=NodeId(node),
        runtime=RuntimeKind.PROCESS,
        spec_hash="x",
        state=ReplicaState.STARTED,
        since=datetime.now(UTC),
    )


async def test_only_the_documents_of_the_node_are_removed(fresh_nats_url: str) -> None:
    bus = Bus(SecretStr(fresh_nats_url), name="test")
    task = asyncio.ensure_future(bus.run())
    await bus.wait_connected()
    await provision(bus.js)
    store = KVStore[ReplicaDocumentV1](bus, REPLICAS)
    for mine in (document("a", "here"), document("b", "here"), document("c", "there")):
        await store.put(mine.id, mine)
    assert await forget_replicas(SecretStr(fresh_nats_url), NodeId("here"), timeout_s=5) == 2
    assert await store.keys() == {"c-0"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_without_nats_it_gives_up_in_time() -> None:
    with pytest.raises(TimeoutError):
        await forget_replicas(SecretStr("nats://127.0.0.1:1"), NodeId("here"), timeout_s=0.3)
