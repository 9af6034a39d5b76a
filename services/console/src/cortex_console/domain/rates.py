"""From sums per step to what charts show: rates, and times per token."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortex_console.domain.shapes import Row, number, rows, text

Points = list[list[object]]
STEP_S = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Span:
    """How far back charts look, in which steps."""

    label: str
    hours: float
    bucket: str


SPANS: dict[str, Span] = {
    "1h": Span("Last hour", 1, "minute"),
    "6h": Span("Last 6 hours", 6, "minute"),
    "24h": Span("Last 24 hours", 24, "hour"),
    "7d": Span("Last 7 days", 168, "hour"),
}


@dataclass(frozen=True, slots=True)
class Rates:
    """Lines over time: pairs of a time and a value; None is a gap."""

    requests: Points
    failed: Points
    prompt_tokens: Points
    completion_tokens: Points
    ttft: Points
    per_token: Points

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened at all."""
        return not any(value for _, value in [*self.requests, *self.failed])


def rates(series: Row, bucket: str) -> Rates:
    """Of one answer of `GET /admin/usage/series` without a breakdown."""
    lines = rows(series.get("items"))
    points = rows(lines[0].get("points")) if lines else []
    step = STEP_S[bucket]
    return Rates(
        requests=_rate(points, ("requests",), step),
        failed=_rate(points, ("upstream_error", "rejected"), step),
        prompt_tokens=_rate(points, ("prompt_tokens",), step),
        completion_tokens=_rate(points, ("completion_tokens",), step),
        ttft=[[text(point.get("at")), _rounded(number(point.get("avg_ttft_ms")))] for point in points],
        per_token=[[text(point.get("at")), _rounded(per_token_ms(point))] for point in points],
    )


def per_token_ms(sums: Row) -> float | None:
    """Mean time between two tokens: what is left of the duration after the first token, over the tokens after it."""
    duration, ttft = number(sums.get("avg_duration_ms")), number(sums.get("avg_ttft_ms"))
    completed, tokens = number(sums.get("completed")), number(sums.get("completion_tokens"))
    if duration is None or ttft is None or not completed or not tokens or tokens <= completed:
        return None
    return max(0.0, (duration - ttft) * completed / (tokens - completed))


def _rate(points: Sequence[Row], names: Sequence[str], step: float) -> Points:
    return [
        [text(point.get("at")), round(sum(number(point.get(name)) or 0 for name in names) / step, 4)]
        for point in points
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
