"""Decisions about usage: what covers a window, percentiles, dates, cells, keys in use."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.base import KeyId
from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import DomainError, PermanentError
from cortex_registry.domain.usage import (
    Bucket,
    check_date,
    parse_status,
    records_since,
    sharpest,
    start_of,
    steps_of,
)
from cortex_registry.domain.usage_latency import GROWTH, RELATIVE_ERROR, describe, middle, quantile
from cortex_registry.domain.usage_periods import (
    Grain,
    Whole,
    Window,
    cover,
    day_of,
    lock_number,
    month_of,
    next_month,
)
from cortex_registry.entrypoints.routes.usage_export import harmless
from cortex_registry.handlers.usage import KeysInUse

NOW = datetime(2026, 5, 17, 10, 30, tzinfo=UTC)
FIRST, LAST = datetime(2025, 1, 1), datetime(2026, 12, 31)  # noqa: DTZ001 hypothesis wants bounds without a zone
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))


def days_between(since: datetime, until: datetime) -> list[datetime]:
    first = day_of(since)
    return [first + timedelta(days=number) for number in range((until - first).days + 1)]


@settings(max_examples=25, deadline=None)
@given(MOMENTS, MOMENTS, st.randoms(use_true_random=False), st.sampled_from(list(Grain)), st.booleans())
def test_a_cover_is_the_window_without_gap_or_overlap_and_uses_only_what_is_whole(
    one: datetime, other: datetime, chance: random.Random, coarsest: Grain, hours: bool
) -> None:
    window = Window(min(one, other), max(one, other))
    days = frozenset(day for day in days_between(window.since, window.until) if chance.random() < 0.97)
    months = frozenset(month for month in {month_of(day) for day in days} if chance.random() < 0.7)
    pieces = cover(window, Whole(days, months), coarsest=coarsest, hours=hours)
    edges = [window.since, *(piece.until for piece in pieces)]
    assert [piece.since for piece in pieces] == edges[:-1]
    assert edges[-1] == window.until
    for piece in pieces:
        assert piece.grain <= coarsest
        if piece.grain is Grain.MONTH:
            assert month_of(piece.since) == piece.since
            assert month_of(piece.until) == piece.until
        elif piece.grain is Grain.DAY:
            assert set(days_between(piece.since, piece.until)[:-1]) <= days
        elif piece.grain is Grain.HOUR:
            assert hours
            assert (piece.since.minute, piece.until.minute, piece.until.microsecond) == (0, 0, 0)


def test_a_year_of_whole_months_takes_few_pieces() -> None:
    since = NOW - timedelta(days=365)
    days = frozenset(days_between(since, NOW)[:-1])
    months = frozenset(month_of(day) for day in days)
    grains = [piece.grain for piece in cover(Window(since, NOW), Whole(days, months))]
    assert grains == [Grain.RECORD, Grain.HOUR, Grain.DAY, Grain.MONTH, Grain.DAY, Grain.HOUR, Grain.RECORD]


def test_days_that_are_whole_by_turns_do_not_blow_a_statement_up() -> None:
    since = datetime(2025, 1, 1, tzinfo=UTC)
    days = frozenset(day for number, day in enumerate(days_between(since, NOW)) if number % 2)
    assert len(cover(Window(since, NOW), Whole(days))) <= 3


def test_locks_of_days_and_months_never_collide() -> None:
    days = days_between(datetime(2000, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
    numbers = [lock_number("day", day) for day in days]
    numbers += [lock_number("month", month) for month in {month_of(day) for day in days}]
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < 2**31 for number in numbers)
    assert next_month(datetime(2026, 12, 1, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


def bucket_of(milliseconds: float) -> int:
    """As `usage_bucket` of the database."""
    return min(1000, math.ceil(math.log(milliseconds) / math.log(GROWTH))) if milliseconds > 1 else 0


@settings(deadline=None)
@given(st.floats(1.0001, 1e9))
def test_the_middle_of_a_bucket_is_at_most_the_stated_error_off(value: float) -> None:
    assert abs(middle(bucket_of(value)) - value) <= RELATIVE_ERROR * value * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_that_of_the_sorted_values_but_for_the_stated_error(values: list[float], q: float) -> None:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    exact = sorted(values)[math.ceil(round(q * len(values), 6)) - 1]
    found = quantile(counts, q)
    assert found is not None
    assert abs(found - exact) <= max(1.0, RELATIVE_ERROR * exact + 0.001)


def test_of_nothing_there_is_no_percentile() -> None:
    nothing = describe({})
    assert (nothing.count, nothing.avg, nothing.p50, nothing.p99) == (0, None, None, None)


def record(**changes: Any) -> UsageRecordedV1:
    values: dict[str, Any] = {
        "request_id": "r", "key_id": KeyId("k"), "model": "m", "route": "/v1", "stream": False, "status": 200,
        "outcome": "completed", "duration_ms": 1, "started_at": NOW,
    }  # fmt: skip
    return UsageRecordedV1(**(values | changes))


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        (NOW, True),
        (NOW - timedelta(days=399), True),
        (NOW + timedelta(days=30), True),
        (NOW - timedelta(days=401), False),
        (NOW + timedelta(days=32), False),
        (datetime(1, 1, 1, tzinfo=UTC), False),
        (datetime(9999, 12, 31, tzinfo=UTC), False),
    ],
)
def test_a_late_or_early_date_is_kept_and_an_absurd_one_is_named(at: datetime, kept: bool) -> None:
    one = record(started_at=at)
    if kept:
        check_date(one, NOW, timedelta(days=400))
    else:
        with pytest.raises(PermanentError, match="started_at"):
            check_date(one, NOW, timedelta(days=400))
    if at.year > 1 and at < NOW:
        check_date(one, NOW, None)


def test_where_records_are_gone_a_window_begins_with_a_day() -> None:
    horizon = records_since(NOW, timedelta(days=100))
    assert horizon == datetime(2026, 2, 1, tzinfo=UTC)
    assert records_since(NOW, None) is None
    late = Window(NOW - timedelta(days=1), NOW)
    assert sharpest(late, horizon) == sharpest(late, None) == late
    old = Window(datetime(2026, 1, 5, 7, 8, tzinfo=UTC), datetime(2026, 1, 6, 9, tzinfo=UTC))
    assert sharpest(old, horizon) == Window(datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 7, tzinfo=UTC))


@settings(max_examples=50, deadline=None)
@given(MOMENTS, st.sampled_from(list(Bucket)), st.integers(1, 100))
def test_steps_touch_the_whole_window_and_begin_where_those_of_utc_do(at: datetime, bucket: Bucket, count: int) -> None:
    steps = steps_of(Window(at, at + bucket.width * count), bucket)
    assert steps[0] == start_of(at, bucket) <= at
    assert steps[-1] < at + bucket.width * count <= steps[-1] + bucket.width
    assert all(step.second == 0 for step in steps)


def test_a_status_is_one_or_a_class() -> None:
    assert [parse_status(text) for text in ("404", "5xx", " 2XX ")] == [(404, 404), (500, 599), (200, 299)]
    for text in ("", "6xx", "5x", "50", "5000", "5xx OR 1=1", "٥٠٠"):
        with pytest.raises(DomainError):
            parse_status(text)


def test_a_key_is_touched_once_a_minute() -> None:
    keys = KeysInUse()
    later = record(started_at=NOW + timedelta(seconds=5))
    assert keys.due([later, record(), record(key_id=KeyId("b"))], 100.0) == {"k": later.started_at, "b": NOW}
    assert keys.due([record()], 159.9) == {}
    assert keys.due([record()], 160.0) == {"k": NOW}
    assert len(keys.due([record(key_id=KeyId(str(number))) for number in range(10_001)], 200.0)) == 10_001


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("\t=1", "'\t=1"), ("  =1", "'  =1"),
        ("\r=1", "'\r=1"), ("a=1", "a=1"), ("", ""), (None, ""), (-5, -5), (1.5, 1.5), (True, "true"), (NOW, NOW.isoformat()),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula_and_numbers_stay_numbers(value: object, cell: object) -> None:
    assert harmless(value) == cell
