"""What the handlers need of the world."""

from collections.abc import Mapping
from typing import Protocol

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.events import Event
from cortex_contracts.library import LibraryV1, MergeRequestV1, ScanRequestV1, VerifyRequestV1, VerifyResultV1
from cortex_contracts.rpc import InspectResultV1
from cortex_gguf_inspector.library.scan import Snapshot
from cortex_gguf_inspector.merge.jobs import Job


class Inspector(Protocol):
    """Reads a model below the models root."""

    async def inspect(self, path: str) -> InspectResultV1:
        """Takes at most the time budget. Raises GgufError."""
        ...


class DocumentStore(Protocol):
    """The bucket `gguf`, as its writer sees it."""

    async def put(self, key: str, document: GgufDocumentV1) -> int:
        """Raises TransientError when it is not known to be stored."""
        ...

    async def delete(self, key: str) -> None:
        """Absence is success. Raises TransientError as `put`."""
        ...


class KnownDocuments(Protocol):
    """The bucket `gguf`, as it is."""

    @property
    def items(self) -> Mapping[str, GgufDocumentV1]:
        """Every document by its identity."""
        ...

    @property
    def synced(self) -> bool:
        """False until the bucket has been read once."""
        ...


class Observers(Protocol):
    """Whoever listens to `gguf.*` events."""

    async def publish(self, event: Event, *, aggregate_id: str, event_id: str | None = None) -> None:
        """Two events with one id are one event. Raises TransientError when it is not known to be stored."""
        ...


class LibraryDisk(Protocol):
    """The models directory as a library."""

    async def scan(self) -> Snapshot:
        """Look at everything now; bounded in time. Raises GgufError."""
        ...

    async def page(self, request: ScanRequestV1) -> LibraryV1:
        """A page of the last scan, or of a new one. Raises GgufError."""
        ...

    async def verify(self, request: VerifyRequestV1) -> VerifyResultV1:
        """Reads whole files; bounded in time. Raises GgufError."""
        ...


class Merges(Protocol):
    """Merges that go on in the background."""

    async def request(self, request: MergeRequestV1) -> Job:
        """Start, join or find a merge. Raises GgufError."""
        ...


class Leadership(Protocol):
    """Whether this instance is the one that writes."""

    @property
    def held(self) -> bool:
        """True while the lease is ours."""
        ...
