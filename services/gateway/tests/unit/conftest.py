"""Documents as the other services write them."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_testing.virtual_time import VirtualTimeLoop

VIRTUAL = frozenset({"test_forwarding", "test_admission"})
"""Modules whose tests wait for a time that passes at once; nothing in them waits for the real one."""
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time for tests of waiting."""
    return {"virtual": VirtualTimeLoop} if item.path.stem in VIRTUAL else {"real": asyncio.new_event_loop}


@pytest.fixture
def model() -> Callable[..., ModelDocumentV1]:
    def make(id_: str = "m1", **fields: object) -> ModelDocumentV1:
        base: dict[str, object] = {
            "aggregateversion": 1,
            "id": id_,
            "name": id_,
            "served_model_name": f"served-{id_}",
            "engine_type": "llamacpp",
            "desired_state": "running",
        }
        return ModelDocumentV1.model_validate(base | fields)

    return make


@pytest.fixture
def replica() -> Callable[..., ReplicaDocumentV1]:
    def make(model_id: str = "m1", ordinal: int = 0, **fields: object) -> ReplicaDocumentV1:
        base: dict[str, object] = {
            "aggregateversion": 1,
            "id": f"{model_id}-{ordinal}",
            "model_id": model_id,
            "ordinal": ordinal,
            "engine_type": "llamacpp",
            "node": "n",
            "runtime": "process",
            "spec_hash": "h1",
            "state": "started",
            "since": NOW,
            "endpoint": f"http://127.0.0.1:{4000 + ordinal}",
        }
        return ReplicaDocumentV1.model_validate(base | fields)

    return make


@pytest.fixture
def verdict() -> Callable[..., VerdictDocumentV1]:
    def make(model_id: str = "m1", ordinal: int = 0, **fields: object) -> VerdictDocumentV1:
        base: dict[str, object] = {
            "aggregateversion": 1,
            "replica_id": f"{model_id}-{ordinal}",
            "model_id": model_id,
            "spec_hash": "h1",
            "endpoint": "http://127.0.0.1:4000",
            "verdict": "healthy",
            "since": NOW,
        }
        return VerdictDocumentV1.model_validate(base | fields)

    return make


@pytest.fixture
def key() -> Callable[..., KeyDocumentV1]:
    def make(digest: str, **fields: object) -> KeyDocumentV1:
        return KeyDocumentV1.model_validate({"aggregateversion": 1, "id": "k1", "digest": digest, "name": "k"} | fields)

    return make
