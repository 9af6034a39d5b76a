"""What the registry needs of the world, in its own words."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import JsonValue

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.documents import Document
from cortex_contracts.enums import ModelState
from cortex_contracts.events import Event, UsageRecordedV1
from cortex_contracts.rpc import InspectResultV1, LogsResultV1
from cortex_kit.ids import uuid7
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import ApiKey, KeyChanges, KeyFilter, PlainKey, Rotation
from cortex_registry.domain.model import Model
from cortex_registry.domain.outbox import Aggregate, Backlog, Cause, OutboxLine
from cortex_registry.domain.state import Projected
from cortex_registry.domain.usage import (
    Breakdown,
    Bucket,
    Dimension,
    Distributions,
    Measure,
    Position,
    Series,
    Totals,
    UsageFilter,
    UsagePage,
)
from cortex_registry.domain.usage_periods import Period, Window
from cortex_registry.domain.versions import Expected


@dataclass(frozen=True, slots=True)
class Act:
    """Who does what: becomes revision, audit entry and event of the same transaction.

    `before` and `after` hold the fields that changed, never a secret.
    """

    caller: Caller
    action: str
    event: Event
    changed: tuple[str, ...] = ()
    before: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    after: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    event_id: str = field(default_factory=uuid7)
    cause: Cause = field(default_factory=Cause)
    """What it follows from, where that is not the caller's request."""

    @property
    def correlation_id(self) -> str | None:
        """The request that the event belongs to."""
        return self.cause.correlation_id or self.caller.request_id


class ModelRepository(Protocol):
    """Models in the database. Every method raises DatabaseUnavailableError when it does not answer in time."""

    async def find(self, reference: str) -> Model | None:
        """By id, served name or alias, archived ones too."""
        ...

    async def list_all(self, *, archived: bool = False) -> Sequence[Model]:
        """Oldest first; with `archived` the archived ones too."""
        ...

    async def add(self, model: Model, act: Act) -> None:
        """Row, names, revision, audit and outbox line, or nothing.

        Raises:
            DomainError: 409 `name_taken`.
        """
        ...

    async def replace(self, model: Model, act: Act) -> bool:
        """Store the next version as `add` does; False when somebody else stored that version first.

        Raises:
            DomainError: 409 `name_taken`.
        """
        ...

    async def remove(self, model: Model, act: Act) -> bool:
        """Delete `model` if the row still has its version."""
        ...

    async def write_all(self, new: Sequence[tuple[Model, Act]], changed: Sequence[tuple[Model, Act]]) -> bool:
        """`add` and `replace` of many, or nothing; False when somebody else changed one of them first.

        Raises:
            DomainError: 409 `name_taken`.
        """
        ...


class Announcements(Protocol):
    """Ledger of the states that were announced."""

    async def load(self) -> Mapping[ModelId, ModelState]:
        """The last announced state per model."""
        ...

    async def announce(self, model_id: ModelId, projected: Projected) -> bool:
        """Commit the announcement and its event together; False when it is not news, or the model is gone."""
        ...


@dataclass(frozen=True, slots=True)
class KeyScope:
    """Which key, for whom; with an owner only that user's keys exist."""

    key_id: KeyId
    caller: Caller
    owner: str | None = None


class KeyRepository(Protocol):
    """API keys in the database; errors as ModelRepository. None: there is no such key."""

    async def list_all(self) -> Sequence[ApiKey]:
        """Oldest first, revoked ones included."""
        ...

    async def page(self, wanted: KeyFilter, now: datetime) -> Sequence[ApiKey]:
        """Oldest first."""
        ...

    async def find(self, key_id: KeyId) -> ApiKey | None: ...

    async def add(self, key: ApiKey, caller: Caller, *, most: int | None = None) -> ApiKey:
        """Row, audit and outbox line, or nothing; returns it with its user's organisation.

        Raises:
            DomainError: 422 `unknown_user`, `unknown_org`; 409 `too_many_keys`, its owner has `most` that live.
        """
        ...

    async def change(self, scope: KeyScope, changes: KeyChanges, expected: Expected, now: datetime) -> ApiKey | None:
        """Change what differs, with audit and outbox line. Raises DomainError as `add`, 409 `key_revoked`, 412."""
        ...

    async def revoke(self, scope: KeyScope, expected: Expected, now: datetime) -> ApiKey | None:
        """Mark revoked, with audit and outbox line, once. Raises DomainError 412."""
        ...

    async def rotate(
        self, scope: KeyScope, new: tuple[KeyId, PlainKey], overlap: timedelta, now: datetime
    ) -> Rotation | None:
        """Successor and end of the old key together. Raises DomainError 409 `key_not_active`, `already_rotated`."""
        ...


class UsageRepository(Protocol):
    """Usage records in the database; errors as ModelRepository."""

    async def insert(self, records: Sequence[UsageRecordedV1]) -> int:
        """Insert those not there yet, all or none; returns how many were new.

        Raises:
            PermanentError: a record that the database can never hold.
        """
        ...

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        """Remember when keys were last used, to the minute."""
        ...


class UsageRow(Protocol):
    """A stored usage record by column."""

    def __getitem__(self, key: str, /) -> Any: ...


class UsageReports(Protocol):
    """Questions about usage; errors as ModelRepository, and UnavailableError `usage_query_timeout`."""

    async def page(self, wanted: UsageFilter, window: Window | None, after: Position | None, limit: int) -> UsagePage:
        """Records, newest first."""
        ...

    async def rows(
        self, wanted: UsageFilter, window: Window, after: Position | None, limit: int
    ) -> tuple[Sequence[UsageRow], Position | None]:
        """As `page`, by column, not made into records."""
        ...

    async def totals(self, wanted: UsageFilter, window: Window | None) -> Totals:
        """Sums; over all that is known when there is no window."""
        ...

    async def breakdown(
        self, wanted: UsageFilter, window: Window, group: tuple[Dimension, ...], bucket: Bucket | None, limit: int
    ) -> Breakdown:
        """The groups (and steps) with most requests, and sums over all."""
        ...

    async def series(
        self, wanted: UsageFilter, window: Window, bucket: Bucket, group: Dimension | None, limit: int
    ) -> Series:
        """A point per step, for all together or for the largest groups."""
        ...

    async def distributions(
        self, wanted: UsageFilter, window: Window, group: Dimension | None, measure: Measure, limit: int
    ) -> Distributions:
        """How long completed requests took, for those of the largest groups that completed any.

        Raises:
            DomainError: 422 `window_too_long`.
        """
        ...


class UsageUpkeepStore(Protocol):
    """Partitions and sums of usage; errors as ModelRepository."""

    async def make_months(self, months: Sequence[datetime]) -> int:
        """Make what is missing of them; returns how many were made."""
        ...

    async def stale(self, now: datetime) -> Sequence[Period]:
        """Periods that are over and whose sums lack records; days before months."""
        ...

    async def sum_up(self, period: Period) -> bool:
        """Sum a period anew; False when another registry is at it."""
        ...

    async def drop_records(self, before: datetime) -> Sequence[str]:
        """Drop whole months that end by `before` and are summed."""
        ...

    async def drop_sums(self, before: datetime) -> None:
        """Forget sums of periods before `before`."""
        ...


class OutboxSession(Protocol):
    """One database connection that holds, or waits for, the relay's lock. Raises DatabaseUnavailableError."""

    async def lead(self) -> bool:
        """Try to become the one relay; the lock goes when the session ends."""
        ...

    async def pending(self, limit: int) -> Sequence[OutboxLine]:
        """The oldest lines, in order."""
        ...

    async def documents(self, aggregate: Aggregate, ids: Collection[str] | None = None) -> Mapping[str, Document]:
        """Present documents by id; all of them when `ids` is None. What is missing was deleted or revoked."""
        ...

    async def settle(self, lines: Sequence[OutboxLine]) -> None:
        """Forget lines whose events are confirmed."""
        ...

    async def backlog(self) -> Backlog:
        """How much waits."""
        ...

    async def raise_version(self, aggregate: Aggregate, aggregate_id: str, above: int) -> None:
        """Lift a row's version above one that readers have seen."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when a commit hinted at new lines, or after `timeout`."""
        ...


class OutboxSource(Protocol):
    """Gives sessions."""

    def open(self) -> AbstractAsyncContextManager[OutboxSession]:
        """A session of its own; entering raises DatabaseUnavailableError."""
        ...


class Mirror(Protocol):
    """The KV buckets `models` and `keys`. Every method raises TransientError while NATS is away."""

    async def stored(self, aggregate: Aggregate) -> Mapping[str, Document | None]:
        """Every document of the bucket; None for one that cannot be read."""
        ...

    async def put(self, aggregate: Aggregate, key: str, document: Document) -> None: ...

    async def delete(self, aggregate: Aggregate, key: str) -> None: ...


class EventSink(Protocol):
    """The stream EVENTS."""

    async def publish(self, line: OutboxLine) -> None:
        """Publish and wait until stored; a repetition is stored once. Raises TransientError."""
        ...


class Provisioning(Protocol):
    """Whether streams and buckets are known to exist."""

    @property
    def generation(self) -> int:
        """Grows each time they were made sure of; 0 before the first time."""
        ...


class Inspector(Protocol):
    """The GGUF inspector."""

    async def inspect(self, path: str) -> InspectResultV1:
        """Read a header below the models root.

        Raises:
            DomainError: 422 with the inspector's code.
            UnavailableError: `inspector_unavailable`.
        """
        ...


class EngineLogs(Protocol):
    """The orchestrators' log access."""

    async def tail(self, node: str, model_id: ModelId, ordinal: int, lines: int) -> LogsResultV1:
        """The last lines of an engine.

        Raises:
            DomainError: with the orchestrator's code.
            UnavailableError: `orchestrator_unavailable`.
        """
        ...
