"""Verdicts on a real bucket, across the end of one run of a replica and the beginning of the next."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.enums import Verdict
from cortex_health.adapters.verdict_store import KvVerdictStore
from cortex_health.ports import ConflictError
from cortex_kit.bus import Bus
from cortex_kit.provision import provision

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

KEY = "m-0"


@pytest.fixture
async def store(nats_server: Any) -> AsyncIterator[KvVerdictStore]:
    client = await nats.connect(nats_server.url)
    await provision(client.jetstream())
    bus = Bus(SecretStr(nats_server.url), name="verdicts")
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(30):
        await bus.wait_connected()
    yield KvVerdictStore(bus)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.close()


def verdict() -> VerdictDocumentV1:
    return VerdictDocumentV1(
        aggregateversion=1,
        replica_id=ReplicaId(KEY),
        model_id=ModelId("m"),
        spec_hash="x",
        endpoint="http://127.0.0.1:1",
        verdict=Verdict.HEALTHY,
        since=datetime.now(UTC),
    )


async def test_a_replica_that_comes_back_under_its_old_name_gets_a_verdict_again(store: KvVerdictStore) -> None:
    assert await store.get(KEY) == (None, 0)
    await store.put(KEY, verdict(), 0)
    await store.delete(KEY)
    with pytest.raises(ConflictError):
        await store.put(KEY, verdict(), 0)
    gone, revision = await store.get(KEY)
    assert gone is None
    written = await store.put(KEY, verdict(), revision)
    assert (await store.get(KEY))[1] == written
