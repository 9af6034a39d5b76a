"""Usage as somebody asks for it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import DomainError, PermanentError
from cortex_registry.domain.text import is_id
from cortex_registry.domain.usage_periods import Window, day_of, month_of

FUTURE = timedelta(days=31)
"""How far a gateway's clock may be ahead before its records are doubted."""
FOR_EVER = timedelta(days=3650)
_STATUS = re.compile(r"([1-5])(\d\d|xx)")


class Dimension(StrEnum):
    """What usage can be broken down by."""

    MODEL = "model"
    KEY = "key"
    USER = "user"
    ORG = "org"
    ENGINE = "engine"
    TASK = "task"
    STATUS = "status"
    OUTCOME = "outcome"


class Bucket(StrEnum):
    """Steps of a series; they begin where those of UTC do."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def width(self) -> timedelta:
        return {Bucket.MINUTE: timedelta(minutes=1), Bucket.HOUR: timedelta(hours=1), Bucket.DAY: timedelta(days=1)}[
            self
        ]


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records; None means all. `model` is the name that clients asked for, or a model's id."""

    model: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    org_id: str | None = None
    engine: str | None = None
    task: str | None = None
    status: str | None = None
    """A status like `404`, or a class like `5xx`."""
    outcome: str | None = None

    @property
    def statuses(self) -> tuple[int, int] | None:
        """Lowest and highest status wanted."""
        return None if self.status is None else parse_status(self.status)

    @property
    def by_model_id(self) -> bool:
        """True when `model` is an id: a name may have belonged to several models."""
        return self.model is not None and is_id(self.model)

    @property
    def dimensions(self) -> frozenset[Dimension]:
        """What the filter looks at."""
        given = {
            Dimension.MODEL: self.model,
            Dimension.KEY: self.key_id,
            Dimension.USER: self.user_id,
            Dimension.ORG: self.org_id,
            Dimension.ENGINE: self.engine,
            Dimension.TASK: self.task,
            Dimension.STATUS: self.status,
            Dimension.OUTCOME: self.outcome,
        }
        return frozenset(dimension for dimension, value in given.items() if value is not None)


def parse_status(text: str) -> tuple[int, int]:
    """`404` -> (404, 404); `5xx` -> (500, 599).

    Raises:
        DomainError: 422 `invalid_request`.
    """
    match = _STATUS.fullmatch(text.strip().lower())
    if match is None:
        message = f"status: {text[:16]!r} is neither a status like 404 nor a class like 5xx."
        errors = [{"field": "status", "code": "invalid_status", "message": message}]
        raise DomainError("invalid_request", message, status=422, details={"errors": errors})
    first = int(match[1]) * 100
    return (first, first + 99) if match[2] == "xx" else (first + int(match[2]), first + int(match[2]))


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over every record that matches."""

    requests: int = 0
    completed: int = 0
    client_disconnected: int = 0
    upstream_error: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Requests whose tokens were counted here, not by the engine."""
    duration_ms: float = 0.0
    ttft_ms: float = 0.0
    ttft_count: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def avg_duration_ms(self) -> float | None:
        return round(self.duration_ms / self.requests, 3) if self.requests else None

    @property
    def avg_ttft_ms(self) -> float | None:
        return round(self.ttft_ms / self.ttft_count, 3) if self.ttft_count else None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Records, newest first, and where the next page begins."""

    records: Sequence[UsageRecordedV1]
    following: "Position | None"


@dataclass(frozen=True, slots=True)
class Position:
    """After which record a page begins."""

    started_at: datetime
    request_id: str


@dataclass(frozen=True, slots=True)
class Group:
    """One row of a breakdown."""

    values: Mapping[Dimension, str]
    """`''` is none."""
    totals: Totals
    names: Mapping[Dimension, str] = field(default_factory=dict[Dimension, str])
    """What people call them, where known."""
    at: datetime | None = None
    """First moment of its step."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The largest groups first, and sums over all of them, those left out included."""

    window: Window
    groups: Sequence[Group]
    totals: Totals


@dataclass(frozen=True, slots=True)
class Line:
    """One series: a point per step, none left out."""

    value: str | None
    name: str | None
    points: Sequence[Totals]


@dataclass(frozen=True, slots=True)
class Series:
    """Lines over the same steps."""

    window: Window
    steps: Sequence[datetime]
    lines: Sequence[Line]


class Measure(StrEnum):
    """What is measured in milliseconds."""

    DURATION = "duration"
    TTFT = "ttft"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How long completed requests of one group took: bucket -> count (see usage_latency.py)."""

    value: str
    name: str | None
    counts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Distributions:
    """The largest groups first."""

    window: Window
    groups: Sequence[Distribution]


def check_date(record: UsageRecordedV1, now: datetime, retention: timedelta | None) -> None:
    """Refuse a date that no honest clock gives; one that is only late or early is kept.

    Raises:
        PermanentError: naming the date and what would be accepted.
    """
    oldest, newest = now - (retention or FOR_EVER), now + FUTURE
    if not oldest <= record.started_at <= newest:
        raise PermanentError(
            f"started_at {record.started_at.isoformat()} is not between {oldest.date()} and {newest.date()}"
        )


def steps_of(window: Window, bucket: Bucket) -> list[datetime]:
    """First moments of every step that the window touches."""
    at = start_of(window.since, bucket)
    steps: list[datetime] = []
    while at < window.until:
        steps.append(at)
        at += bucket.width
    return steps


def start_of(moment: datetime, bucket: Bucket) -> datetime:
    """First moment of the step that `moment` lies in."""
    day = day_of(moment)
    return day + ((moment - day) // bucket.width) * bucket.width


def sharpest(window: Window, horizon: datetime | None) -> Window:
    """The window, widened to whole days where its records are gone and only sums are left."""
    if horizon is None or window.since >= horizon:
        return window
    until = window.until
    if until < horizon and until != day_of(until):
        until = day_of(until) + timedelta(days=1)
    return Window(day_of(window.since), until)


def records_since(now: datetime, retention: timedelta | None) -> datetime | None:
    """The month from which on records are kept; None: all are."""
    return None if retention is None else month_of(now - retention)
