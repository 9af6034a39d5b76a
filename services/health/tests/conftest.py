"""Documents for tests."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, RuntimeKind

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def make_replica() -> Callable[..., ReplicaDocumentV1]:
    def make(**changes: Any) -> ReplicaDocumentV1:
        model = ModelId("0197f2a0-0000-7000-8000-000000000001")
        fields: dict[str, Any] = {
            "aggregateversion": 1,
            "id": replica_id(model, 0),
            "model_id": model,
            "ordinal": 0,
            "engine_type": EngineType.LLAMACPP,
            "node": NodeId("node-1"),
            "runtime": RuntimeKind.PROCESS,
            "spec_hash": "hash-1",
            "state": ReplicaState.STARTED,
            "since": START,
            "endpoint": "http://127.0.0.1:9999",
        }
        return ReplicaDocumentV1(**(fields | changes))

    return make
