"""What the prober needs of the world."""

from collections.abc import Mapping
from typing import Protocol

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1, VerdictDocumentV1
from cortex_health.domain.engine_metrics import EngineSample
from cortex_health.domain.verdicts import HealthState, Probe
from cortex_kit.errors import CortexError


class Engines(Protocol):
    """Looks at engines over the network."""

    async def probe(self, replica: ReplicaDocumentV1) -> Probe:
        """One look, within a deadline. Every failure of the network or the engine is a Probe; raises nothing."""
        ...

    async def prove(self, replica: ReplicaDocumentV1) -> Probe | None:
        """One real request for one token, within a deadline; None when this replica is not asked. Raises nothing."""
        ...

    async def read_load(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """What a healthy engine says of its capacity; None when it does not say. Raises nothing."""
        ...

    async def read_sample(self, replica: ReplicaDocumentV1) -> EngineSample | None:
        """The engine's own metrics; None when it does not tell them. Raises nothing."""
        ...


class Documents(Protocol):
    """A read-only projection of the buckets, always available, perhaps stale."""

    def replicas(self) -> Mapping[str, ReplicaDocumentV1]:
        """Every replica, by id."""
        ...

    def verdicts(self) -> Mapping[str, VerdictDocumentV1]:
        """Every stored verdict, by replica id."""
        ...

    def synced(self) -> bool:
        """True once both were read."""
        ...


class ConflictError(CortexError):
    """Somebody else has written since we looked."""


class VerdictStore(Protocol):
    """The bucket `verdicts`."""

    async def get(self, key: str) -> tuple[VerdictDocumentV1 | None, int]:
        """The stored document and its revision, 0 when the key was never written. Raises TransientError."""
        ...

    async def put(self, key: str, document: VerdictDocumentV1, revision: int) -> int:
        """Replace that very revision; returns the new one.

        Raises:
            ConflictError: the stored revision is another one; nothing was written.
            TransientError: it is not known to be stored.
        """
        ...

    async def delete(self, key: str) -> None:
        """Absence is success. Raises TransientError."""
        ...


class EventSink(Protocol):
    """The stream of events."""

    async def publish_raw(self, subject: str, payload: bytes, event_id: str) -> None:
        """Stored once per event id. Raises TransientError when it is not known to be stored."""
        ...


class Shares(Protocol):
    """Which part of the work is this member's."""

    @property
    def ready(self) -> bool:
        """True once it is known who else is there."""
        ...

    def mine(self, key: str) -> bool:
        """Whether this member looks after that key now."""
        ...

    def contest(self, key: str, other: str) -> bool:
        """Another member writes about our key. True when it goes before us: the key is left to it for a while."""
        ...


class Exporter(Protocol):
    """Shows what the engines of this member say, to whoever scrapes it."""

    def show(self, replica: ReplicaDocumentV1, state: HealthState) -> None:
        """The verdict and the capacity."""
        ...

    def sampled(self, replica: ReplicaDocumentV1, sample: EngineSample | None) -> None:
        """The last reading; None when the engine could not be read."""
        ...

    def drop(self, replica_id: ReplicaId) -> None:
        """It is gone, or another's."""
        ...
