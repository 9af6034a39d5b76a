"""What the event log needs of the world. Every method raises DatabaseUnavailableError when Postgres does not answer."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cortex_registry.domain.eventlog import EventFilter, EventPage, LoggedEvent, NewEvent


class EventLog(Protocol):
    """The table of events."""

    async def append(self, events: Sequence[NewEvent]) -> int:
        """Add those not there yet, all or none, in their order; returns how many were new.

        Raises:
            PermanentError: an event that the database can never hold.
        """
        ...

    async def page(self, wanted: EventFilter, *, after: int | None, newest_first: bool, limit: int) -> EventPage:
        """Events that pass the filter, behind the cursor in the given direction."""
        ...

    async def outdated(self, *, max_age_s: float, max_rows: int) -> int:
        """Up to which sequence rows are too old or too many; 0 for none."""
        ...

    async def prune(self, through: int, limit: int) -> int:
        """Delete the oldest rows up to `through`, at most `limit`; returns how many."""
        ...


class EventSession(Protocol):
    """One connection that hears of new rows."""

    async def head(self) -> int:
        """The newest sequence."""
        ...

    async def after(self, sequence: int, limit: int) -> Sequence[LoggedEvent]:
        """The next rows."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when a commit hinted at new rows, or after `timeout`."""
        ...


class EventSource(Protocol):
    """Gives sessions."""

    def open(self) -> AbstractAsyncContextManager[EventSession]:
        """A session of its own."""
        ...
