"""What pages need of the world."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from cortex_console.domain.shapes import Row

Query = Mapping[str, Any]


class AdminCalls(Protocol):
    """The admin API as one signed-in user sees it. Every method raises ConsoleError."""

    async def get(self, path: str, query: Query | None = None) -> Row:
        """`GET /admin<path>`; members of the query that are None are left out."""
        ...

    async def post(
        self, path: str, body: object = None, query: Query | None = None, *, version: int | None = None
    ) -> Row:
        """`POST /admin<path>`; an empty row for an answer without a body. `version` as for `patch`."""
        ...

    async def put(self, path: str, body: object = None, *, version: int | None = None) -> Row:
        """`PUT /admin<path>`. `version` as for `patch`."""
        ...

    async def patch(self, path: str, body: object, *, version: int | None = None) -> Row:
        """`PATCH /admin<path>`; with `version` only if nobody changed it meanwhile (412 `precondition_failed`)."""
        ...

    async def delete(self, path: str, query: Query | None = None) -> Row:
        """`DELETE /admin<path>`."""
        ...

    def stream(self, path: str, query: Query | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Chunks of a long answer: an export, a log that is followed."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the installation."""

    sequence: int
    type: str
    """Like `model.state_changed.v1`."""
    data: Row
    """The CloudEvents envelope; its `data` holds what happened."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that came together. `resync`: some may have been missed, so read everything anew."""

    events: tuple[Event, ...]
    resync: bool = False

    def has(self, *prefixes: str) -> bool:
        """Whether there is something to do for a page that cares for these types, like `model.`."""
        return self.resync or any(event.type.startswith(prefixes) for event in self.events)


OnBatch = Callable[[Batch], Awaitable[None]]
