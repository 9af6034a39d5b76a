"""Answers about usage."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cortex_contracts.events import UsageRecordedV1
from cortex_registry.domain.usage import Breakdown, Dimension, Distributions, Group, Line, Series, Totals, UsagePage
from cortex_registry.domain.usage_latency import RELATIVE_ERROR, describe
from cortex_registry.domain.usage_periods import Window
from cortex_registry.entrypoints.schemas.usage_queries import encode_position


class UsageSums(BaseModel):
    """Sums over some requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": 1200,
                    "completed": 1180,
                    "client_disconnected": 5,
                    "upstream_error": 3,
                    "rejected": 12,
                    "prompt_tokens": 340_000,
                    "cached_tokens": 120_000,
                    "completion_tokens": 95_000,
                    "total_tokens": 435_000,
                    "estimated": 5,
                    "avg_duration_ms": 812.5,
                    "avg_ttft_ms": 95.25,
                }
            ]
        }
    )

    requests: int
    completed: int
    client_disconnected: int
    upstream_error: int
    rejected: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int = Field(description="Prompt and completion.")
    estimated: int = Field(description="Requests whose tokens the engine did not report.")
    avg_duration_ms: float | None
    avg_ttft_ms: float | None


class WindowAnswer(BaseModel):
    """From `since` up to, but without, `until` (UTC), as it was answered."""

    since: datetime
    until: datetime


class UsageAnswer(BaseModel):
    """The newest records that match; with the first page sums over all that match."""

    items: list[UsageRecordedV1]
    next: str | None = Field(description="`after` of the next page; null on the last.")
    totals: UsageSums | None = Field(
        description="Null on later pages. With `model`, without the requests that named it and found no model."
    )

    @classmethod
    def of(cls, page: UsagePage, totals: Totals | None) -> "UsageAnswer":
        return cls(
            items=list(page.records),
            next=encode_position(page.following),
            totals=UsageSums(**sums_of(totals)) if totals is not None else None,
        )


class UsageGroup(UsageSums):
    """One row of a breakdown. What it is not broken down by is null; so is what a request had none of."""

    at: datetime | None = Field(default=None, description="First moment of the hour or day.")
    model: str | None = None
    key_id: str | None = None
    key_name: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    org_id: str | None = None
    org_name: str | None = None
    engine: str | None = None
    task: str | None = None
    status: int | None = None
    outcome: str | None = None


class UsageBreakdown(WindowAnswer):
    """The groups with most requests first, and sums over all groups, those left out included."""

    group_by: list[str]
    items: list[UsageGroup]
    totals: UsageSums

    @classmethod
    def of(cls, found: Breakdown, group_by: list[str]) -> "UsageBreakdown":
        return cls(
            **window_of(found.window),
            group_by=group_by,
            items=[UsageGroup(at=group.at, **labels_of(group), **sums_of(group.totals)) for group in found.groups],
            totals=UsageSums(**sums_of(found.totals)),
        )


class UsagePoint(UsageSums):
    at: datetime


class UsageLine(BaseModel):
    """One line of a chart."""

    value: str | None = Field(description="Of `group_by`; null: all together, or none.")
    name: str | None
    points: list[UsagePoint]


class UsageSeries(WindowAnswer):
    """A point for every step, also where nothing happened."""

    bucket: str
    group_by: str | None
    items: list[UsageLine]

    @classmethod
    def of(cls, found: Series, bucket: str, group_by: str | None) -> "UsageSeries":
        def line(one: Line) -> UsageLine:
            # Not checked again: there may be thousands, and they come from `Totals`.
            points = [
                UsagePoint.model_construct(at=at, **sums_of(totals))
                for at, totals in zip(found.steps, one.points, strict=True)
            ]
            return UsageLine(value=one.value or None, name=one.name, points=points)

        return cls(
            **window_of(found.window), bucket=bucket, group_by=group_by, items=[line(one) for one in found.lines]
        )


class LatencyGroup(BaseModel):
    """Milliseconds; null where nothing was measured."""

    value: str | None = Field(description="Of `group_by`; null: all together, or none.")
    name: str | None
    count: int
    avg: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class UsageLatencies(WindowAnswer):
    """Percentiles of completed requests, counted in buckets: each value above 1 ms is at most `relative_error` off."""

    group_by: str | None
    relative_error: float = RELATIVE_ERROR
    items: list[LatencyGroup]

    @classmethod
    def of(cls, found: Distributions, group_by: str | None) -> "UsageLatencies":
        items = [
            LatencyGroup(
                value=group.value or None,
                name=group.name,
                **asdict(describe(group.counts)),
            )
            for group in found.groups
        ]
        return cls(**window_of(found.window), group_by=group_by, items=items)


def sums_of(totals: Totals) -> dict[str, Any]:
    """Fields of UsageSums."""
    fields: dict[str, Any] = asdict(totals)
    for hidden in ("duration_ms", "ttft_ms", "ttft_count"):
        del fields[hidden]
    return fields | {
        "total_tokens": totals.total_tokens,
        "avg_duration_ms": totals.avg_duration_ms,
        "avg_ttft_ms": totals.avg_ttft_ms,
    }


def window_of(window: Window) -> dict[str, Any]:
    """Fields of WindowAnswer."""
    return {"since": window.since, "until": window.until}


_WITH_ID = (Dimension.KEY, Dimension.USER, Dimension.ORG)


def labels_of(group: Group) -> dict[str, Any]:
    """Labels of a UsageGroup."""
    labels: dict[str, Any] = {}
    for dimension, value in group.values.items():
        field = f"{dimension.value}_id" if dimension in _WITH_ID else dimension.value
        labels[field] = int(value) if dimension is Dimension.STATUS else value or None
        if dimension in _WITH_ID:
            labels[f"{dimension.value}_name"] = group.names.get(dimension)
    return labels
