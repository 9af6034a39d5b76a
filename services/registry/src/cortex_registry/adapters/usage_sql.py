"""SQL of usage reports: named templates filled with columns and parameter numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.usage import Bucket, Dimension, Measure, UsageFilter
from cortex_registry.domain.usage_periods import Grain, Piece

SQL = load_queries("usage_reports")
_TABLES = {Grain.HOUR: "usage_hourly", Grain.DAY: "usage_daily", Grain.MONTH: "usage_monthly"}
_SERIES_COLUMN = {
    Dimension.MODEL: "model",
    Dimension.KEY: "key_id",
    Dimension.USER: "user_id",
    Dimension.ORG: "org_id",
    Dimension.ENGINE: "engine_type",
    Dimension.TASK: "task",
}
_MEASURE_COLUMN = {Dimension.STATUS: "status", Dimension.OUTCOME: "outcome"}
_COLUMN = {**_SERIES_COLUMN, **_MEASURE_COLUMN}
HOURLY = frozenset({"all", "model", "org", "engine", "task", "status", "outcome"})
"""Dimensions that days keep by hour, too: those of few values (`summarize_hours`)."""


@dataclass(slots=True)
class Parameters:
    """Values of a statement; `add` gives the number to write in its text."""

    values: list[Any] = field(default_factory=list[Any])

    def add(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True, slots=True)
class Question:
    """What to sum, and how to break it down. `only` keeps some values of the one dimension of `group`."""

    wanted: UsageFilter
    group: tuple[Dimension, ...] = ()
    bucket: Bucket | None = None
    only: tuple[str, ...] | None = None

    @property
    def single(self) -> str | None:
        """The one dimension that both filter and breakdown are about, `all` for none, None for several."""
        used = self.wanted.dimensions | set(self.group)
        if self.wanted.by_model_id or len(used) > 1:
            return None
        return next(iter(used)).value if used else "all"

    @property
    def coarsest(self) -> Grain:
        """Nothing coarser than this can answer."""
        if self.bucket is Bucket.HOUR:
            return Grain.DAY if self.single in HOURLY else Grain.HOUR
        return {None: Grain.MONTH, Bucket.DAY: Grain.DAY}.get(self.bucket, Grain.RECORD)

    @property
    def columns(self) -> list[str]:
        return [*(["bucket"] if self.bucket else []), *(dimension.value for dimension in self.group)]


def sums(question: Question, pieces: Sequence[Piece], limit: int | None) -> tuple[str, list[Any]]:
    """One row per group and step; with a limit the largest groups after one row (`grand` not 0) of sums over all."""
    parameters = Parameters()
    parts = " UNION ALL ".join(_part(question, piece, parameters) for piece in pieces)
    columns = [f'"{column}"' for column in question.columns]
    listed = ", ".join(columns)
    if limit is None:
        grouping, order, grand = (f"GROUP BY {listed}" if columns else ""), "", "0"
    else:
        grouping = f"GROUP BY GROUPING SETS (({listed}), ())" if columns else ""
        grand = f"grouping({listed})" if columns else "1"
        order = f"ORDER BY grand DESC, requests DESC{''.join(', ' + column for column in columns)} LIMIT {limit + 1}"
    text = SQL["whole"].format(
        columns=listed + "," if columns else "", grand=grand, parts=parts, grouping=grouping, order=order
    )
    return text, parameters.values


def _part(question: Question, piece: Piece, parameters: Parameters) -> str:
    if piece.grain >= Grain.DAY and question.single is not None:
        return _from_summaries(question, piece, question.single, parameters)
    if piece.grain is Grain.RECORD:
        return _from_records(question, piece, parameters)
    return _from_cube(question, piece, parameters)


def _from_summaries(question: Question, piece: Piece, dimension: str, parameters: Parameters) -> str:
    grain = "day" if piece.grain is Grain.DAY else "month"
    conditions = [
        f"x.grain = '{'hour' if question.bucket is Bucket.HOUR else grain}'",
        f"x.dimension = '{dimension}'",
        *_range("x.period", piece, parameters),
    ]
    if question.wanted.statuses is not None:
        low, high = question.wanted.statuses
        conditions.append(f"x.value::integer BETWEEN {parameters.add(low)} AND {parameters.add(high)}")
    else:
        values = {_COLUMN[used]: "x.value" for used in question.wanted.dimensions}
        conditions += _filters(question.wanted, values, parameters)
    if question.only is not None:
        conditions.append(f"x.value = ANY({parameters.add(list(question.only))}::text[])")
    columns = _step(question, "x.period") + [("x.value", dimension.value) for dimension in question.group]
    return _select(columns, "sums_of_summaries", "usage_summaries x", conditions)


def _from_cube(question: Question, piece: Piece, parameters: Parameters) -> str:
    used = question.wanted.dimensions | set(question.group)
    labelled = bool(used & set(_SERIES_COLUMN))
    if labelled and question.bucket is None and not question.wanted.dimensions & set(_SERIES_COLUMN):
        return _by_series_first(question, piece, parameters)
    source = f"{_TABLES[piece.grain]} x" + (" JOIN usage_series s ON s.id = x.series_id" if labelled else "")
    names = {column: f"s.{column}" for column in (*_SERIES_COLUMN.values(), "model_id")}
    names |= {column: f"x.{column}" for column in _MEASURE_COLUMN.values()}
    conditions = [*_range("x.period", piece, parameters), *_filters(question.wanted, names, parameters)]
    return _grouped(question, names, "x.period", ("sums_of_cube", source, conditions), parameters)


def _by_series_first(question: Question, piece: Piece, parameters: Parameters) -> str:
    """Sums by number first, by the texts that the numbers stand for afterwards: there are far fewer of those sums."""
    measured = {column: f"x.{column}" for column in _MEASURE_COLUMN.values()}
    kept = [measured[_COLUMN[one]] for one in question.group if one in _MEASURE_COLUMN]
    conditions = [*_range("x.period", piece, parameters), *_filters(question.wanted, measured, parameters)]
    inner = SQL["part"].format(
        columns=", ".join(["x.series_id", *kept]) + ",",
        sums=SQL["sums_of_cube"],
        source=f"{_TABLES[piece.grain]} x",
        conditions=" AND ".join(conditions),
        grouping="GROUP BY " + ", ".join(["x.series_id", *kept]),
    )
    names = {column: f"s.{column}" for column in _SERIES_COLUMN.values()} | measured
    columns = [(f"{names[_COLUMN[dimension]]}::text", dimension.value) for dimension in question.group]
    conditions = ["TRUE"]
    if question.only is not None:
        conditions.append(f"{columns[-1][0]} = ANY({parameters.add(list(question.only))}::text[])")
    source = f"({inner}) x JOIN usage_series s ON s.id = x.series_id"
    return _select(columns, "sums_of_summaries", source, conditions)


def _from_records(question: Question, piece: Piece, parameters: Parameters) -> str:
    names = {column: f"x.{column}" for column in (*_COLUMN.values(), "model_id")}
    conditions = [*_range("x.started_at", piece, parameters), *_filters(question.wanted, names, parameters)]
    return _grouped(question, names, "x.started_at", ("sums_of_records", "usage_labelled x", conditions), parameters)


def _grouped(
    question: Question,
    names: dict[str, str],
    time: str,
    of: tuple[str, str, list[str]],
    parameters: Parameters,
) -> str:
    which, source, conditions = of
    columns = _step(question, time)
    for dimension in question.group:
        columns.append((f"{names[_COLUMN[dimension]]}::text", dimension.value))
    if question.only is not None:
        conditions.append(f"{columns[-1][0]} = ANY({parameters.add(list(question.only))}::text[])")
    return _select(columns, which, source, conditions)


def _select(columns: list[tuple[str, str]], which: str, source: str, conditions: list[str]) -> str:
    listed = "".join(f'{expression} AS "{name}", ' for expression, name in columns)
    grouping = f"GROUP BY {', '.join(str(number + 1) for number in range(len(columns)))}" if columns else ""
    return SQL["part"].format(
        columns=listed, sums=SQL[which], source=source, conditions=" AND ".join(conditions), grouping=grouping
    )


def _step(question: Question, time: str) -> list[tuple[str, str]]:
    if question.bucket is None:
        return []
    return [(f"date_trunc('{question.bucket.value}', {time}, 'UTC')", "bucket")]


def _range(time: str, piece: Piece, parameters: Parameters) -> list[str]:
    return [f"{time} >= {parameters.add(piece.since)}", f"{time} < {parameters.add(piece.until)}"]


def _filters(wanted: UsageFilter, names: dict[str, str], parameters: Parameters) -> list[str]:
    """Conditions of a filter, on columns by `names`."""
    given = {
        "key_id": wanted.key_id,
        "user_id": wanted.user_id,
        "org_id": wanted.org_id,
        "engine_type": wanted.engine,
        "task": wanted.task,
        "outcome": wanted.outcome,
        ("model_id" if wanted.by_model_id else "model"): wanted.model,
    }
    conditions = [f"{names[column]} = {parameters.add(value)}" for column, value in given.items() if value is not None]
    if wanted.statuses is not None:
        low, high = (parameters.add(status) for status in wanted.statuses)
        conditions.append(f"{names['status']} BETWEEN {low} AND {high}")
    return conditions


def page(wanted: UsageFilter, span: Piece | None, after: tuple[Any, str] | None, limit: int) -> tuple[str, list[Any]]:
    """Records as they are, newest first, after a position."""
    parameters = Parameters()
    names = {column: column for column in (*_COLUMN.values(), "model_id")}
    conditions = _filters(wanted, names, parameters)
    if wanted.statuses is not None and wanted.statuses[0] >= 400:
        conditions.append("status >= 400")  # lets the index of failures be used
    if span is not None:
        conditions += _range("started_at", span, parameters)
    if after is not None:
        # The first condition alone lets whole months be left out.
        conditions.append(f"started_at <= {parameters.add(after[0])}")
        conditions.append(f"(started_at, request_id) < (${len(parameters.values)}, {parameters.add(after[1])})")
    text = SQL["list_usage"].format(conditions=" AND ".join(conditions) or "TRUE", limit=parameters.add(limit))
    return text, parameters.values


def distribution(question: Question, measure: Measure, pieces: Sequence[Piece]) -> tuple[str, list[Any]]:
    """Counts by group and bucket, for completed requests."""
    parameters = Parameters()
    parts = " UNION ALL ".join(_counted(question, measure, piece, parameters) for piece in pieces)
    return SQL["distribution"].format(parts=parts), parameters.values


def _counted(question: Question, measure: Measure, piece: Piece, parameters: Parameters) -> str:
    if piece.grain is Grain.RECORD:
        names = {column: f"x.{column}" for column in (*_COLUMN.values(), "model_id")}
        conditions = [*_range("x.started_at", piece, parameters), *_filters(question.wanted, names, parameters)]
        value = f"{names[_COLUMN[question.group[0]]]}::text" if question.group else "''"
        if question.only is not None:
            conditions.append(f"{value} = ANY({parameters.add(list(question.only))}::text[])")
        return SQL["distribution_of_records"].format(
            value=value, measure=measure.value, conditions=" AND ".join(conditions)
        )
    values = {_COLUMN[used]: "x.value" for used in question.wanted.dimensions}
    conditions = [
        f"x.grain = '{'day' if piece.grain is Grain.DAY else 'month'}'",
        f"x.dimension = '{question.single}'",
        *_range("x.period", piece, parameters),
        *_filters(question.wanted, values, parameters),
    ]
    if question.only is not None:
        conditions.append(f"x.value = ANY({parameters.add(list(question.only))}::text[])")
    return SQL["distribution_of_latencies"].format(measure=measure.value, conditions=" AND ".join(conditions))
