"""What the other services wrote, as far as the registry has read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cortex_contracts.base import ModelId
from cortex_contracts.documents import NodeDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.external import external_replicas
from cortex_registry.domain.model import Model
from cortex_registry.domain.state import Projected, project


class ReplicaView(Protocol):
    """Bucket `replicas`."""

    @property
    def items(self) -> Mapping[str, ReplicaDocumentV1]: ...

    def readiness(self) -> str | None: ...


class VerdictView(Protocol):
    """Bucket `verdicts`."""

    @property
    def items(self) -> Mapping[str, VerdictDocumentV1]: ...

    def readiness(self) -> str | None: ...


class NodeView(Protocol):
    """Bucket `nodes`."""

    @property
    def items(self) -> Mapping[str, NodeDocumentV1]: ...

    def readiness(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One observed replica and what health says of this incarnation."""

    replica: ReplicaDocumentV1
    verdict: VerdictDocumentV1 | None


@dataclass(frozen=True, slots=True)
class Observed:
    """A model with its projected state; `state` is None while nothing could be observed, `reason` then says why."""

    model: Model
    state: Projected | None
    reason: str
    replicas: tuple[ReplicaStatus, ...]


class Observation:
    """Joins stored models with the live views. Never waits, never writes."""

    def __init__(self, replicas: ReplicaView, verdicts: VerdictView, nodes: NodeView) -> None:
        self._replicas = replicas
        self._verdicts = verdicts
        self._nodes = nodes

    def readiness(self) -> str | None:
        """Why nothing can be said yet, or None."""
        return self._replicas.readiness() or self._verdicts.readiness()

    @property
    def nodes(self) -> tuple[NodeDocumentV1, ...]:
        return tuple(sorted(self._nodes.items.values(), key=lambda node: node.id))

    @property
    def replicas(self) -> tuple[ReplicaDocumentV1, ...]:
        return tuple(self._replicas.items.values())

    def replicas_of(self, model_id: ModelId) -> tuple[ReplicaStatus, ...]:
        """In the order of their ordinals."""
        own = sorted(
            (replica for replica in self._replicas.items.values() if replica.model_id == model_id),
            key=lambda replica: replica.ordinal,
        )
        return tuple(ReplicaStatus(replica, self._verdict_of(replica)) for replica in own)

    def observe(self, model: Model) -> Observed:
        """The model as an administrator sees it now."""
        unread = self.readiness()
        if unread is not None:
            return Observed(model, None, f"not observed yet: {unread}", ())
        own = self._endpoints_of(model) if model.document.external else self.replicas_of(model.id)
        state = project(
            model.document,
            [status.replica for status in own],
            [status.verdict for status in own if status.verdict is not None],
            desired_since=model.desired_since,
        )
        return Observed(model, state, state.reason, own)

    def _endpoints_of(self, model: Model) -> tuple[ReplicaStatus, ...]:
        """Endpoints that others run, as replicas; they are known since the model was asked for."""
        return tuple(
            ReplicaStatus(replica.model_copy(update={"since": model.desired_since}), self._verdict_of(replica))
            for replica in external_replicas(model.document)
        )

    def _verdict_of(self, replica: ReplicaDocumentV1) -> VerdictDocumentV1 | None:
        verdict = self._verdicts.items.get(replica.id)
        return verdict if verdict is not None and verdict.spec_hash == replica.spec_hash else None
