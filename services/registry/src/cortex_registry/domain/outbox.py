"""What leaves the database: events in order, and the documents that must equal it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cortex_contracts.documents import Document
from cortex_contracts.events import Event


class Aggregate(StrEnum):
    """What the registry alone writes."""

    MODEL = "model"
    KEY = "key"
    ORG = "org"
    USER = "user"
    RECIPE = "recipe"
    WEBHOOK = "webhook"


MIRRORED = (Aggregate.MODEL, Aggregate.KEY)
"""Those whose present documents lie in a bucket of the same name; the others are known by their events alone."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What an event follows from: the request it belongs to and the event before it."""

    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxLine:
    """A committed event that has not been confirmed as published."""

    seq: int
    event_id: str
    aggregate: Aggregate
    aggregate_id: str
    version: int
    event: Event
    created_at: datetime
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Size of the outbox and age of its oldest line in seconds."""

    rows: int
    age_s: float


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What makes a bucket equal to the database.

    `ahead` names keys whose stored document claims a higher version than the database (which was restored from a
    backup): readers would ignore ours, so the row's version must first be raised above it.
    """

    puts: tuple[str, ...]
    deletes: tuple[str, ...]
    ahead: Mapping[str, int]


def plan_mirror(wanted: Mapping[str, Document], stored: Mapping[str, Document | None]) -> MirrorPlan:
    """Compare a bucket with the database.

    Args:
        wanted: documents made from the rows.
        stored: documents in the bucket; None for one that cannot be read.
    """
    ahead: dict[str, int] = {}
    puts: list[str] = []
    for key, document in wanted.items():
        present = stored.get(key)
        if present is not None and present.aggregateversion > document.aggregateversion:
            ahead[key] = present.aggregateversion
        elif present != document:
            puts.append(key)
    deletes = tuple(key for key in stored if key not in wanted)
    return MirrorPlan(tuple(puts), deletes, ahead)
