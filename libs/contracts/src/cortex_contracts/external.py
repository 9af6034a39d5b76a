"""Endpoints that others run, seen as replicas, so that health, gateway and registry treat them like any other."""

import hashlib
from datetime import UTC, datetime

from cortex_contracts.base import NodeId, ReplicaId, replica_id
from cortex_contracts.documents import ExternalEndpoint, ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import DesiredState, ReplicaState, RuntimeKind

EXTERNAL_NODE = NodeId("external")
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def endpoint_hash(endpoint: ExternalEndpoint) -> str:
    """Changes when the endpoint is another one, not when it gets another key."""
    text = f"{endpoint.url}\x00{endpoint.served_name or ''}"
    return f"external-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def external_replicas(model: ModelDocumentV1) -> tuple[ReplicaDocumentV1, ...]:
    """A started replica per endpoint of a model that is asked to be routed; none for one that is not.

    `since` is long ago: an endpoint that cannot be reached is unhealthy at once, not young.
    """
    if model.desired_state is not DesiredState.RUNNING:
        return ()
    return tuple(
        ReplicaDocumentV1(
            aggregateversion=model.aggregateversion,
            id=replica_id(model.id, ordinal),
            model_id=model.id,
            ordinal=ordinal,
            engine_type=model.engine_type,
            node=EXTERNAL_NODE,
            runtime=RuntimeKind.PROCESS,
            spec_hash=endpoint_hash(endpoint),
            state=ReplicaState.STARTED,
            since=_EVER,
            endpoint=endpoint.url,
            correlation_id=model.correlation_id,
            causation_id=model.causation_id,
        )
        for ordinal, endpoint in enumerate(model.external)
    )


def endpoint_of(model: ModelDocumentV1 | None, replica: ReplicaId) -> ExternalEndpoint | None:
    """The endpoint that a replica id of `external_replicas` stands for; None for a replica that Cortex runs."""
    if model is None:
        return None
    for ordinal, endpoint in enumerate(model.external):
        if replica == replica_id(model.id, ordinal):
            return endpoint
    return None
