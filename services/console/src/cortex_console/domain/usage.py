"""Usage as the console shows it: which requests, in which steps, in which words."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from urllib.parse import urlencode

from cortex_console.domain.formatting import NOTHING, count_text, duration_text, time_cells
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.states import ENGINES, Tone, engine_name, task_name

RANGES = {"1h": "Hour", "24h": "Day", "7d": "Week", "30d": "30 days", "90d": "90 days", "custom": "Custom"}
DIMENSIONS = {
    "model": "Model",
    "key": "API key",
    "user": "User",
    "org": "Organisation",
    "engine": "Engine",
    "task": "Task",
    "status": "Status",
    "outcome": "Outcome",
}
STATUSES = {"2xx": "Succeeded (2xx)", "4xx": "Refused (4xx)", "429": "Over a limit (429)", "5xx": "Failed (5xx)"}
OUTCOMES = {
    "completed": "completed",
    "client_disconnected": "client left",
    "upstream_error": "engine failed",
    "rejected": "refused",
}
_OUTCOME_TONES = {
    "completed": Tone.GOOD,
    "client_disconnected": Tone.NEUTRAL,
    "upstream_error": Tone.BAD,
    "rejected": Tone.WARN,
}
_HOURS = {"1h": 1, "24h": 24, "7d": 168, "30d": 720, "90d": 2160}
_MINUTES_UP_TO, _HOURS_UP_TO = timedelta(hours=6), timedelta(days=10)
_WITH_ID = ("key", "user", "org")


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which requests; empty texts ask for all. The names are those of the registry's parameters."""

    range: str = "24h"
    since: str = ""
    """Days of a custom range, both included."""
    until: str = ""
    model: str = ""
    key: str = ""
    user: str = ""
    org: str = ""
    engine: str = ""
    status: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read the address of the page; what makes no sense is left out."""
        known = {one.name: query[one.name][:256] for one in fields(cls) if query.get(one.name)}
        found = cls(**known)
        if found.range not in RANGES or (found.range == "custom" and found._days() is None):
            found = replace(found, range="24h", since="", until="")
        return found

    def address(self, **changes: str) -> str:
        """The page with this filter, and these changes of it."""
        changed = replace(self, **changes)
        given = {one.name: getattr(changed, one.name) for one in fields(changed)}
        if changed.range != "custom":
            given["since"] = given["until"] = ""
        return f"/usage?{urlencode({name: value for name, value in given.items() if value})}"

    def period(self) -> dict[str, Any]:
        """Parameters of the time alone."""
        days = self._days()
        if self.range == "custom" and days is not None:
            ends = datetime.combine(days[1] + timedelta(days=1), time(), UTC)
            return {"since": datetime.combine(days[0], time(), UTC).isoformat(), "until": ends.isoformat()}
        return {"hours": _HOURS.get(self.range, 24)}

    def query(self) -> dict[str, Any]:
        """Parameters of the registry's reports."""
        names = ("model", "key", "user", "org", "engine", "status")
        return self.period() | {name: getattr(self, name) or None for name in names}

    @property
    def bucket(self) -> str:
        """A step that makes a chart of a few dozen to a few hundred points."""
        length = self._length()
        if length <= _MINUTES_UP_TO:
            return "minute"
        return "hour" if length <= _HOURS_UP_TO else "day"

    def export(self) -> str:
        """Where the browser gets all records that match."""
        given = {name: value for name, value in self.query().items() if value is not None}
        return f"/download/usage?{urlencode(given | {'format': 'csv'})}"

    def _length(self) -> timedelta:
        days = self._days()
        if self.range == "custom" and days is not None:
            return days[1] - days[0] + timedelta(days=1)
        return timedelta(hours=_HOURS.get(self.range, 24))

    def _days(self) -> tuple[date, date] | None:
        try:
            first, last = date.fromisoformat(self.since), date.fromisoformat(self.until)
        except ValueError:
            return None
        return (first, last) if first <= last and (last - first).days <= 1400 and first.year >= 2000 else None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of some requests, in milliseconds."""

    p50: float | None = None
    p95: float | None = None

    @classmethod
    def of(cls, group: Row) -> Self:
        """Read one group of /admin/usage/latency."""
        return cls(number(group.get("p50")), number(group.get("p95")))


def percentiles_by_value(answer: Row) -> dict[str, Percentiles]:
    """By the value of the dimension; by an empty text for all together."""
    return {text(group.get("value")): Percentiles.of(group) for group in rows(answer.get("items"))}


def names_of(answer: Row, dimension: str) -> dict[str, str]:
    """What a filter offers: values and names of a breakdown."""
    found: dict[str, str] = {}
    for group in rows(answer.get("items")):
        value = group_value(group, dimension)
        if value:
            found[value] = group_name(group, dimension)
    return dict(sorted(found.items(), key=lambda pair: pair[1].lower()))


def group_value(group: Row, dimension: str) -> str:
    """What its requests have in common; empty: they have none of it."""
    return text(group.get(f"{dimension}_id" if dimension in _WITH_ID else dimension))


def group_name(group: Row, dimension: str) -> str:
    """That in words."""
    value = group_value(group, dimension)
    if dimension in _WITH_ID:
        return text(group.get(f"{dimension}_name")) or (f"{value[:8]}… (gone)" if value else "none")
    if dimension == "engine":
        return engine_name(value) if value else "none"
    if dimension == "task":
        return task_name(value) if value else "none"
    if dimension == "outcome":
        return OUTCOMES.get(value, value)
    return value or ("no such model" if dimension == "model" else "none")


def group_row(
    group: Row, dimension: str, wanted: UsageFilter, times: tuple[Mapping[str, Percentiles], Mapping[str, Percentiles]]
) -> dict[str, object]:
    """A row of the breakdown; `times` are those of whole requests and of first tokens."""
    value = group_value(group, dimension)
    requests, failed = whole(group.get("requests")), whole(group.get("upstream_error")) + whole(group.get("rejected"))
    taken, first = times[0].get(value, Percentiles()), times[1].get(value, Percentiles())
    can_filter = bool(value) and dimension in ("model", "key", "user", "org", "engine", "status")
    return {
        "id": value or "none",
        "name": group_name(group, dimension),
        "name_href": wanted.address(**{dimension: value}) if can_filter else None,
        "requests": f"{requests:,}",
        "requests_sort": requests,
        "failed": f"{failed / requests:.1%}" if failed and requests else NOTHING,
        "failed_sort": failed / requests if requests else 0.0,
        **_tokens(group),
        **_milliseconds("latency", taken.p50),
        **_milliseconds("latency95", taken.p95),
        **_milliseconds("ttft", first.p50),
        **_milliseconds("ttft95", first.p95),
    }


def record_row(record: Row, keys: Mapping[str, str], users: Mapping[str, str], now: datetime) -> dict[str, object]:
    """A row of the records."""
    outcome = text(record.get("outcome"))
    key_id = text(record.get("key_id"))
    return {
        "id": text(record.get("request_id")),
        **time_cells("at", record.get("started_at"), now),
        "model": text(record.get("model"), NOTHING),
        "model_note": task_name(text(record.get("task"))) + (" · streamed" if record.get("stream") else ""),
        "status": f"{whole(record.get('status'))} {OUTCOMES.get(outcome, outcome)}",
        "status_tone": _OUTCOME_TONES.get(outcome, Tone.NEUTRAL).value,
        **_tokens(record),
        **_milliseconds("latency", number(record.get("duration_ms"))),
        **_milliseconds("ttft", number(record.get("ttft_ms"))),
        "key": keys.get(key_id, f"{key_id[:8]}…" if key_id else NOTHING),
        "key_note": users.get(text(record.get("user_id")), ""),
        "request": text(record.get("request_id")),
    }


def series_of(answer: Row, names: Mapping[str, str]) -> dict[str, list[list[Any]]]:
    """Pairs of time and value, by the words for the fields of `names`."""
    lines = rows(answer.get("items"))
    points = rows(lines[0].get("points")) if lines else []
    return {label: [[point.get("at"), whole(point.get(name))] for point in points] for name, label in names.items()}


def failed_share(totals: Row) -> str:
    """How many failed or were refused."""
    requests = whole(totals.get("requests"))
    refused, failed = whole(totals.get("rejected")), whole(totals.get("upstream_error"))
    if not requests:
        return "no requests"
    return f"{refused:,} refused, {failed:,} failed" if refused or failed else "none refused, none failed"


def milliseconds_text(value: float | None) -> str:
    """As people read it."""
    return NOTHING if value is None else duration_text(value / 1000)


def within_text(times: Percentiles) -> str:
    """What nearly all of them took."""
    return "nothing measured" if times.p95 is None else f"95 % within {milliseconds_text(times.p95)}"


def totals_of(answer: Row) -> Row:
    """Sums over everything that matches."""
    return row(answer.get("totals"))


def choices(known: Mapping[str, str], chosen: str) -> dict[str, str]:
    """What a filter offers, with what is chosen though nothing matches it."""
    return dict(known) if not chosen or chosen in known else {chosen: f"{chosen[:12]}…"} | dict(known)


def engines() -> Mapping[str, str]:
    """Names of engines."""
    return ENGINES


def _tokens(sums: Row) -> dict[str, object]:
    prompt, answer = whole(sums.get("prompt_tokens")), whole(sums.get("completion_tokens"))
    return {
        "prompt": count_text(prompt) if prompt else NOTHING,
        "prompt_sort": prompt,
        "completion": count_text(answer) if answer else NOTHING,
        "completion_sort": answer,
    }


def _milliseconds(name: str, value: float | None) -> dict[str, object]:
    return {name: milliseconds_text(value), f"{name}_sort": -1 if value is None else value}
