"""Questions about usage, answered from the coarsest sums that are whole."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_registry.adapters import usage_sql
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.records import Row, usage_from_row
from cortex_registry.adapters.usage_sql import SQL, Question
from cortex_registry.domain.text import is_id
from cortex_registry.domain.usage import (
    Breakdown,
    Bucket,
    Dimension,
    Distribution,
    Distributions,
    Group,
    Line,
    Measure,
    Position,
    Series,
    Totals,
    UsageFilter,
    UsagePage,
    records_since,
    sharpest,
    start_of,
    steps_of,
)
from cortex_registry.domain.usage_periods import Grain, Piece, Whole, Window, cover, day_of, month_of
from cortex_registry.errors import UnavailableError

LONGEST_MIXED = timedelta(days=32)
"""Distributions of several dimensions at once are made of the records themselves: this far and no farther."""
_NAMED = {Dimension.KEY: "key_names", Dimension.USER: "user_names", Dimension.ORG: "org_names"}
_TOTALS = tuple(Totals.__dataclass_fields__)
Names = Mapping[Dimension, Mapping[str, str]]


class PostgresUsageReports:
    """UsageReports."""

    def __init__(self, database: Database, clock: Clock, *, retention: timedelta | None, timeout_s: float) -> None:
        self._database = database
        self._clock = clock
        self._retention = retention
        self._timeout_s = timeout_s

    async def page(self, wanted: UsageFilter, window: Window | None, after: Position | None, limit: int) -> UsagePage:
        rows, following = await self._page(wanted, window, after, limit)
        return UsagePage([usage_from_row(row) for row in rows], following)

    async def rows(
        self, wanted: UsageFilter, window: Window, after: Position | None, limit: int
    ) -> tuple[Sequence[Row], Position | None]:
        return await self._page(wanted, window, after, limit)

    async def _page(
        self, wanted: UsageFilter, window: Window | None, after: Position | None, limit: int
    ) -> tuple[Sequence[Row], Position | None]:
        span = Piece(Grain.RECORD, window.since, window.until) if window is not None else None
        start = (after.started_at, after.request_id) if after is not None else None
        async with self._reading() as connection:
            rows = await self._fetch(connection, usage_sql.page(wanted, span, start, limit + 1))
        last = rows[limit - 1] if len(rows) > limit else None
        return rows[:limit], Position(last["started_at"], last["request_id"]) if last is not None else None

    async def totals(self, wanted: UsageFilter, window: Window | None) -> Totals:
        async with self._reading() as connection:
            if window is None:
                first = await connection.fetchval(SQL["first_period"])
                if first is None:
                    return Totals()
                window = Window(first, day_of(self._clock.now()) + timedelta(days=62))
            pieces = await self._cover(connection, window, Grain.MONTH)
            rows = await self._fetch(connection, usage_sql.sums(Question(wanted), pieces, 1))
        return _totals(rows[0])

    async def breakdown(
        self, wanted: UsageFilter, window: Window, group: tuple[Dimension, ...], bucket: Bucket | None, limit: int
    ) -> Breakdown:
        window = self._sharpest(window)
        async with self._reading() as connection:
            question = Question(wanted, group, bucket)
            pieces = await self._cover(connection, window, question.coarsest)
            rows = await self._fetch(connection, usage_sql.sums(question, pieces, limit))
            names = await _names(connection, group, rows)
        groups = [_group(row, group, bucket, names) for row in rows if row["grand"] == 0]
        return Breakdown(window, groups, next((_totals(row) for row in rows if row["grand"] != 0), Totals()))

    async def series(
        self, wanted: UsageFilter, window: Window, bucket: Bucket, group: Dimension | None, limit: int
    ) -> Series:
        window = self._sharpest(window)
        # Whole steps: half a step at either end would look like a fall.
        window = Window(start_of(window.since, bucket), steps_of(window, bucket)[-1] + bucket.width)
        groups = (group,) if group is not None else ()
        async with self._reading() as connection:
            only = await self._largest(connection, wanted, window, group, limit) if group is not None else None
            question = Question(wanted, groups, bucket, only)
            pieces = await self._cover(connection, window, question.coarsest, hours=bucket is not Bucket.MINUTE)
            rows = await self._fetch(connection, usage_sql.sums(question, pieces, None))
            names = await _names(connection, groups, rows)
        return _series(window, bucket, group, only, rows, names)

    async def _largest(
        self, connection: Connection, wanted: UsageFilter, window: Window, group: Dimension, limit: int
    ) -> tuple[str, ...]:
        pieces = await self._cover(connection, window, Grain.MONTH)
        rows = await self._fetch(connection, usage_sql.sums(Question(wanted, (group,)), pieces, limit))
        return tuple(row[group.value] for row in rows if row["grand"] == 0)

    async def distributions(
        self, wanted: UsageFilter, window: Window, group: Dimension | None, measure: Measure, limit: int
    ) -> Distributions:
        groups = (group,) if group is not None else ()
        mixed = Question(wanted, groups).single in (None, Dimension.STATUS.value, Dimension.OUTCOME.value)
        if mixed and window.until - window.since > LONGEST_MIXED:
            message = (
                f"Latencies by several dimensions at once reach over {LONGEST_MIXED.days} days at most. "
                "Ask for a shorter window, or leave out a filter or the breakdown."
            )
            raise DomainError("window_too_long", message, status=422)
        window = self._sharpest(window)
        async with self._reading() as connection:
            only = await self._largest(connection, wanted, window, group, limit) if group is not None else None
            coarsest = Grain.RECORD if mixed else Grain.MONTH
            pieces = await self._cover(connection, window, coarsest, hours=False)
            question = Question(wanted, groups, None, only)
            rows = await self._fetch(connection, usage_sql.distribution(question, measure, pieces))
            names = await _names(connection, groups, [{group.value: value} for value in only or ()] if group else [])
        named = names.get(group, {}) if group is not None else {}
        return Distributions(window, _distributions(rows, only or ("",), named))

    def _sharpest(self, window: Window) -> Window:
        return sharpest(window, records_since(self._clock.now(), self._retention))

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncGenerator[Connection]:
        """One snapshot for several statements: which periods are whole and what they hold must agree."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(SQL["settle_in"])
            yield connection

    async def _cover(
        self, connection: Connection, window: Window, coarsest: Grain, *, hours: bool = True
    ) -> Sequence[Piece]:
        if coarsest < Grain.DAY:
            return cover(window, Whole(), coarsest=coarsest, hours=hours)
        rows = await connection.fetch(SQL["known_periods"], month_of(window.since), window.until)
        pieces = cover(_clipped(window, rows), _whole(rows), coarsest=coarsest, hours=hours)
        return pieces or (Piece(Grain.RECORD, window.since, window.since),)

    async def _fetch(self, connection: Connection, statement: tuple[str, list[Any]]) -> Sequence[Row]:
        text, values = statement
        try:
            return await connection.fetch(text, *values, timeout=self._timeout_s)
        except TimeoutError as error:
            message = f"The answer took longer than {self._timeout_s:g} s. Ask for a shorter window or fewer groups."
            raise UnavailableError("usage_query_timeout", message) from error


def _whole(rows: Iterable[Row]) -> Whole:
    clean = [row for row in rows if row["clean"]]
    return Whole(
        frozenset(row["period"] for row in clean if row["grain"] == "day"),
        frozenset(row["period"] for row in clean if row["grain"] == "month"),
    )


def _clipped(window: Window, rows: Sequence[Row]) -> Window:
    """The window without what lies before the first and after the last day with records."""
    days = [row["period"] for row in rows if row["grain"] == "day"]
    if not days:
        return Window(window.since, window.since)
    since = max(window.since, min(days))
    return Window(since, max(since, min(window.until, max(days) + timedelta(days=1))))


def _totals(row: Row) -> Totals:
    return Totals(**{name: row[name] for name in _TOTALS})


def _group(row: Row, group: Sequence[Dimension], bucket: Bucket | None, names: Names) -> Group:
    values = {dimension: str(row[dimension.value]) for dimension in group}
    known = {one: names[one][value] for one, value in values.items() if value in names.get(one, {})}
    return Group(values, _totals(row), known, row["bucket"] if bucket is not None else None)


def _series(
    window: Window,
    bucket: Bucket,
    group: Dimension | None,
    only: tuple[str, ...] | None,
    rows: Sequence[Row],
    names: Names,
) -> Series:
    steps = steps_of(window, bucket)
    found = {(str(row[group.value]) if group else None, row["bucket"]): _totals(row) for row in rows}
    lines = [
        Line(value, names.get(group, {}).get(value) if group and value else None, points)
        for value in (only if only is not None else (None,))
        for points in [[found.get((value, step), Totals()) for step in steps]]
    ]
    return Series(window, steps, lines)


def _distributions(rows: Sequence[Row], order: Sequence[str], names: Mapping[str, str]) -> list[Distribution]:
    counts: dict[str, dict[int, int]] = {}
    for row in rows:
        counts.setdefault(row["value"], {})[row["bucket"]] = row["many"]
    return [Distribution(value, names.get(value), counts[value]) for value in order if value in counts]


async def _names(
    connection: Connection, group: Sequence[Dimension], rows: Sequence[Row | Mapping[str, Any]]
) -> dict[Dimension, dict[str, str]]:
    """What people call the keys, users and organisations in an answer."""
    names: dict[Dimension, dict[str, str]] = {}
    for dimension in group:
        query = _NAMED.get(dimension)
        if query is None:
            continue
        ids = sorted({str(row[dimension.value]) for row in rows if is_id(str(row[dimension.value]))})
        found = await connection.fetch(SQL[query], ids) if ids else []
        names[dimension] = {row["id"]: row["name"] for row in found}
    return names
