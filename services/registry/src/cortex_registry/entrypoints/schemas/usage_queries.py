"""Parameters of usage reports."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cortex_contracts.base import UtcDatetime
from cortex_contracts.enums import EngineType, Task, UsageOutcome
from cortex_kit.errors import DomainError
from cortex_registry.domain.usage import Bucket, Dimension, Position, UsageFilter, parse_status
from cortex_registry.domain.usage_periods import Window

MAX_POINTS = 1500
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
Text = Annotated[str, Field(max_length=256)]
Id = Annotated[str, Field(max_length=128)]


class GroupBy(StrEnum):
    """What to break sums down by."""

    MODEL = "model"
    KEY = "key"
    USER = "user"
    ORG = "org"
    ENGINE = "engine"
    TASK = "task"
    STATUS = "status"
    OUTCOME = "outcome"
    HOUR = "hour"
    DAY = "day"


class FilterQuery(BaseModel):
    """Which records, and of when. Nothing given: all."""

    model_config = ConfigDict(extra="forbid")

    model: Text | None = Field(default=None, description="The name that clients asked for, or a model's id.")
    key: Id | None = Field(default=None, description="Id of an API key.")
    key_id: Id | None = Field(default=None, description="The same as `key`.")
    user: Id | None = Field(default=None, description="Id of a user.")
    user_id: Id | None = Field(default=None, description="The same as `user`.")
    org: Id | None = Field(default=None, description="Id of an organisation.")
    org_id: Id | None = Field(default=None, description="The same as `org`.")
    engine: EngineType | None = None
    task: Task | None = None
    status: str | None = Field(default=None, max_length=16, description="A status like `404`, or a class like `5xx`.")
    outcome: UsageOutcome | None = None
    since: UtcDatetime | None = Field(default=None, description="First moment, e.g. 2026-01-31T00:00:00Z.")
    until: UtcDatetime | None = Field(
        default=None, description="First moment that no longer counts; now, if not given."
    )
    hours: float | None = Field(
        default=None, gt=0, le=87_600, description="The last so many hours before `until`, instead of `since`."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("status")
    @classmethod
    def _known_status(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_status(value)
            except DomainError as error:
                raise ValueError(error.message) from None
        return value

    @field_validator("since", "until")
    @classmethod
    def _plausible(cls, value: datetime | None) -> datetime | None:
        if value is not None and not EARLIEST <= value <= LATEST:
            raise ValueError(f"must lie between {EARLIEST.year} and {LATEST.year}")
        return value

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.since is not None and self.hours is not None:
            raise ValueError("hours: give either since or hours, not both")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since: must be before until")
        return self

    def wanted(self, user_id: str | None = None) -> UsageFilter:
        """As the reports take it; `user_id` overrules the parameter."""
        return UsageFilter(
            model=self.model,
            key_id=self.key or self.key_id,
            user_id=user_id or self.user or self.user_id,
            org_id=self.org or self.org_id,
            engine=self.engine,
            task=self.task,
            status=self.status,
            outcome=self.outcome,
        )

    def window(self, now: datetime, default: timedelta = timedelta(hours=24)) -> Window:
        """From when to when; the last `default` unless said otherwise.

        Raises:
            DomainError: 422, the beginning lies after the end.
        """
        until = self.until or now
        span = timedelta(hours=self.hours) if self.hours is not None else default
        since = self.since or until - span
        if since >= until:
            raise _refusal("since", "since must be before until.")
        return Window(since, until)

    def any_window(self, now: datetime) -> Window | None:
        """As `window`; None when nothing was said of time."""
        if self.since is None and self.until is None and self.hours is None:
            return None
        return self.window(now, now - EARLIEST if self.until is None else self.until - EARLIEST + timedelta(days=1))


class ListQuery(FilterQuery):
    """A page of records."""

    limit: int = Field(default=100, ge=1, le=1000)
    after: str | None = Field(default=None, max_length=512, description="`next` of the page before.")


class AggregateQuery(FilterQuery):
    """Sums; of the last 24 hours unless said otherwise."""

    group_by: list[GroupBy] = Field(
        default=[GroupBy.MODEL], min_length=1, max_length=4, description="One or several, also `group_by=model,key`."
    )
    limit: int = Field(default=100, ge=1, le=10_000, description="How many groups, those with most requests first.")

    @field_validator("group_by", mode="before")
    @classmethod
    def _commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            given = cast("list[object]", value)
            return [part.strip() for one in given for part in str(one).split(",") if part.strip()]
        return value

    @field_validator("group_by")
    @classmethod
    def _once_each(cls, value: list[GroupBy]) -> list[GroupBy]:
        if len(set(value)) != len(value) or {GroupBy.HOUR, GroupBy.DAY} <= set(value):
            raise ValueError("must name each once, and one of hour and day")
        return value

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return tuple(Dimension(one.value) for one in self.group_by if one not in (GroupBy.HOUR, GroupBy.DAY))

    @property
    def bucket(self) -> Bucket | None:
        return next((Bucket(one.value) for one in self.group_by if one in (GroupBy.HOUR, GroupBy.DAY)), None)


class SeriesQuery(FilterQuery):
    """Sums by step."""

    bucket: Bucket = Field(default=Bucket.HOUR, description=f"At most {MAX_POINTS} steps.")
    group_by: Dimension | None = None
    limit: int = Field(default=10, ge=1, le=50, description="How many lines, those with most requests.")

    def steps(self, now: datetime) -> Window:
        """The window, if it has not too many steps.

        Raises:
            DomainError: 422.
        """
        window = self.window(now, {Bucket.MINUTE: timedelta(hours=1)}.get(self.bucket, timedelta(hours=24)))
        if (window.until - window.since) / self.bucket.width > MAX_POINTS:
            raise _refusal("bucket", f"That is more than {MAX_POINTS} points: take a wider bucket or a shorter window.")
        return window


class LatencyQuery(FilterQuery):
    """Percentiles of completed requests; of the last 24 hours unless said otherwise."""

    group_by: Dimension | None = None
    limit: int = Field(default=20, ge=1, le=500, description="How many groups, those with most requests first.")


class ExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    JSON = "json"
    """The same as jsonl: one object a line."""


class ExportQuery(FilterQuery):
    """Records of the last 24 hours unless said otherwise, newest first."""

    format: ExportFormat = ExportFormat.CSV
    limit: int | None = Field(default=None, ge=1, description="At most so many records.")


def encode_position(position: Position | None) -> str | None:
    """As clients carry it."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(f"{position.started_at.isoformat()} {position.request_id}".encode()).decode()


def decode_position(text: str | None) -> Position | None:
    """What `encode_position` made.

    Raises:
        DomainError: 422, it made no such thing.
    """
    if text is None:
        return None
    try:
        moment, _, request_id = base64.urlsafe_b64decode(text.encode("ascii", "replace")).decode().partition(" ")
        started_at = datetime.fromisoformat(moment)
        if started_at.tzinfo is None or not request_id or "\x00" in request_id:
            raise ValueError(text)
        return Position(started_at.astimezone(UTC), request_id)
    except (ValueError, OverflowError, binascii.Error):
        raise _refusal("after", "after must be `next` of the page before.") from None


def _refusal(field: str, message: str) -> DomainError:
    errors = [{"field": field, "code": "invalid_value", "message": message}]
    return DomainError("invalid_request", message, status=422, details={"errors": errors})
