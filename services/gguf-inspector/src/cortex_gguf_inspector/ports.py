"""What the handler needs of the world."""

from typing import Protocol

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.events import Event
from cortex_contracts.rpc import InspectResultV1


class Inspector(Protocol):
    """Reads a model below the models root."""

    async def inspect(self, path: str) -> InspectResultV1:
        """Takes at most the time budget. Raises GgufError."""
        ...


class DocumentStore(Protocol):
    """The bucket `gguf`."""

    async def put(self, key: str, document: GgufDocumentV1) -> int:
        """Raises TransientError when it is not known to be stored."""
        ...


class Observers(Protocol):
    """Whoever listens to `gguf.*` events."""

    async def try_publish(self, event: Event, *, aggregate_id: str) -> bool:
        """Best effort; never raises for an absent broker. False when not stored."""
        ...
