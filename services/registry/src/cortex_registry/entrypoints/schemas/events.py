"""Answers about events."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cortex_contracts.base import UtcDatetime
from cortex_registry.domain.eventlog import EventPage, LoggedEvent

EXAMPLE: dict[str, JsonValue] = {
    "sequence": 4711,
    "id": "019c2f4e-6d1f-7a52-8f63-3f0a2c9d1e55",
    "type": "model.state_changed.v1",
    "source": "cortex/registry/host-1",
    "subject": "019c2f4e-0000-7000-8000-00000000000a",
    "time": "2026-11-22T19:30:00Z",
    "aggregateversion": 3,
    "correlationid": "req-1",
    "causationid": "019c2f4e-6d1f-7a52-8f63-3f0a2c9d1e54",
    "model_id": "019c2f4e-0000-7000-8000-00000000000a",
    "replica_id": None,
    "key_id": None,
    "data": {"model_id": "019c2f4e-0000-7000-8000-00000000000a", "state": "running", "reason": "1 replica healthy"},
}


BIGGEST = 2**63 - 1


class EventQuery(BaseModel):
    """Which events somebody wants."""

    type: list[str] = Field(
        default_factory=list[str],
        max_length=50,
        description="Event types, several of them or separated by commas; `*` is one word, `*` alone is everything.",
        examples=[["container.*", "model.state_changed"]],
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=256, description="Id, served name or alias of a model."
    )
    replica: str | None = Field(default=None, min_length=1, max_length=128, description="Id of a replica.")
    key: str | None = Field(default=None, min_length=1, max_length=64, description="Id of an API key.")
    correlation: str | None = Field(
        default=None, min_length=1, max_length=128, description="X-Request-Id of the request that they belong to."
    )
    source: str | None = Field(
        default=None, min_length=1, max_length=256, description="A service, like `orchestrator`, or a whole source."
    )
    since: UtcDatetime | None = Field(default=None, description="Not before this time.")


class EventPageQuery(EventQuery):
    """Which page of them."""

    after: int | None = Field(default=None, ge=0, le=BIGGEST, description="`next` of the page before.")
    order: Literal["newest", "oldest"] = Field(default="newest", description="Which come first.")
    limit: int = Field(default=100, ge=1, le=1000)


class EventStreamQuery(EventQuery):
    """Where the stream begins."""

    after: int | None = Field(default=None, ge=0, le=BIGGEST, description="Begin behind this sequence.")


class EventAnswer(BaseModel):
    """One event: the attributes of its CloudEvents envelope, and its place in the log."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    sequence: int = Field(
        description="Grows in the order in which events became visible; the cursor of lists and streams."
    )
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    aggregateversion: int
    correlationid: str | None = Field(description="The request that it belongs to.")
    causationid: str | None = Field(description="The event that it follows from.")
    model_id: str | None
    replica_id: str | None
    key_id: str | None
    data: dict[str, JsonValue]

    @classmethod
    def of(cls, event: LoggedEvent) -> "EventAnswer":
        return cls(
            sequence=event.sequence,
            id=event.event_id,
            type=event.type,
            source=event.source,
            subject=event.subject,
            time=event.time,
            aggregateversion=event.aggregate_version,
            correlationid=event.correlation_id,
            causationid=event.causation_id,
            model_id=event.model_id,
            replica_id=event.replica_id,
            key_id=event.key_id,
            data=dict(event.data),
        )


class EventList(BaseModel):
    """A page of events."""

    items: list[EventAnswer]
    next: int | None = Field(description="Give it as `after` for the next page; null when this page is not full.")
    head: int = Field(description="The newest sequence when the page was read.")
    pruned: int = Field(description="Events up to here may have left the log because of their age.")

    @classmethod
    def of(cls, page: EventPage, limit: int) -> "EventList":
        more = len(page.events) == limit
        return cls(
            items=[EventAnswer.of(event) for event in page.events],
            next=page.events[-1].sequence if more else None,
            head=page.head,
            pruned=page.pruned,
        )
