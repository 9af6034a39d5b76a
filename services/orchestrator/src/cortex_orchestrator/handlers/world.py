"""What the reconciler reads of the outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_kit.clock import Clock
from cortex_orchestrator.ports import LeaseView


class ModelsView(Protocol):
    """Desired state, as far as it is known."""

    @property
    def items(self) -> Mapping[str, ModelDocumentV1]: ...

    @property
    def synced(self) -> bool: ...


class ReplicasView(Protocol):
    """What the store holds of all nodes' replicas."""

    @property
    def items(self) -> Mapping[str, ReplicaDocumentV1]: ...

    @property
    def synced(self) -> bool: ...


class VerdictsView(Protocol):
    """What the health service concluded of all nodes' replicas."""

    @property
    def items(self) -> Mapping[str, VerdictDocumentV1]: ...

    @property
    def synced(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class World:
    """What the reconciler reads. `connected` tells whether the views are live at this moment."""

    models: ModelsView
    replicas: ReplicasView
    verdicts: VerdictsView
    lease: LeaseView
    connected: Callable[[], bool]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    resync_s: float = 5.0
    absence_grace_s: float = 15.0
