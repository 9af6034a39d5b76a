"""What the prober needs of the world."""

from collections.abc import Mapping
from typing import Protocol

from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1, VerdictDocumentV1
from cortex_health.domain import Probe


class Engines(Protocol):
    """Looks at engines over the network."""

    async def probe(self, replica: ReplicaDocumentV1) -> Probe:
        """One look, within a deadline. Every failure of the network or the engine is a Probe; raises nothing."""
        ...

    async def read_load(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """What a healthy engine says of its capacity; None when it does not say. Raises nothing."""
        ...

    async def read_traffic(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """Requests running and waiting and the work done so far; None when it does not say. Raises nothing."""
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


class VerdictStore(Protocol):
    """The bucket `verdicts`."""

    async def put(self, key: str, document: VerdictDocumentV1) -> int:
        """Raises TransientError when it is not known to be stored."""
        ...

    async def delete(self, key: str) -> None:
        """Absence is success. Raises TransientError."""
        ...


class EventSink(Protocol):
    """The stream of events."""

    async def publish_raw(self, subject: str, payload: bytes, event_id: str) -> None:
        """Stored once per event id. Raises TransientError when it is not known to be stored."""
        ...


class Mandate(Protocol):
    """Whether this instance is the one that probes."""

    @property
    def held(self) -> bool:
        """True until it is known that another instance has it."""
        ...
