"""Endpoints that the gateway routes to, as the page Health shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cortex_console.domain.formatting import NOTHING, moment, time_cells
from cortex_console.domain.model_detail import EngineLoad, percent_text
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.domain.states import engine_name, verdict_tone
from cortex_console.domain.timeline import Turn, health_turns, segments

DAY = timedelta(hours=24)
VERDICTS: Mapping[str, str] = {
    "unhealthy": "Unhealthy",
    "loading": "Loading",
    "unprobed": "Not probed",
    "healthy": "Healthy",
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint, run by Cortex or by others."""

    id: str
    model_id: str
    model: str
    engine: str
    external: bool
    node: str
    url: str
    verdict: str
    reason: str
    since: str
    load: EngineLoad
    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/upstreams`."""
        return cls(
            id=text(answer.get("id")),
            model_id=text(answer.get("model_id")),
            model=text(answer.get("model")),
            engine=text(answer.get("engine_type")),
            external=bool(answer.get("external")),
            node=text(answer.get("node")),
            url=text(answer.get("url")),
            verdict=text(answer.get("verdict"), "unprobed"),
            reason=text(answer.get("reason")),
            since=text(answer.get("since")),
            load=EngineLoad.of(answer.get("load")),
            turns=tuple(health_turns(rows(answer.get("history")))),
        )

    def matches(self, search: str, verdict: str, where: str) -> bool:
        """Whether a list with this filter shows it."""
        words = f"{self.model} {self.url} {self.node} {self.reason}".lower()
        return (
            all(word in words for word in search.lower().split())
            and verdict in ("", self.verdict)
            and (where == "" or (where == "external") == self.external)
        )


def counts(upstreams: Sequence[Upstream]) -> dict[str, int]:
    """How many have each verdict; all verdicts are there."""
    return {verdict: sum(one.verdict == verdict for one in upstreams) for verdict in VERDICTS}


def upstream_row(one: Upstream, now: datetime) -> dict[str, object]:
    """Fields of a table's row."""
    begin = max([now - DAY, *[turn.at for turn in one.turns[:1]]])
    parts: list[dict[str, object]] = [
        {"tone": part.tone.value, "share": round(part.share, 5), "words": part.words}
        for part in segments(one.turns, begin, now)
    ]
    return {
        "id": one.id,
        "row_name": f"{one.model} at {one.url}",
        "model": one.model,
        "model_href": f"/models/{one.model_id}",
        "model_note": one.url.removeprefix("http://") or NOTHING,
        "engine": engine_name(one.engine),
        "engine_kind": one.engine,
        "where": "run by others" if one.external else one.node,
        "verdict": VERDICTS.get(one.verdict, one.verdict).lower(),
        "verdict_tone": verdict_tone(one.verdict).value,
        "verdict_note": one.reason,
        "load": one.load.words,
        "kv": percent_text(one.load.kv_usage),
        "past": parts or [{"tone": "unknown", "share": 1, "words": "not known"}],
        "past_words": past_words(one, now),
    } | time_cells("since", one.since, now)


def past_words(one: Upstream, now: datetime) -> str:
    """The last day in words."""
    recent = [turn for turn in one.turns if turn.at >= now - DAY]
    bad = sum(turn.state == "unhealthy" for turn in recent)
    if moment(one.since) is None:
        return "not probed yet"
    return f"became unhealthy {bad} × in the last 24 hours" if bad else "no trouble in the last 24 hours"
