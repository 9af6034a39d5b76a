"""Usage by the admin API."""

import asyncio
from dataclasses import dataclass

from cortex_console.domain.shapes import Row, rows, text
from cortex_console.domain.usage import UsageFilter, names_of
from cortex_console.ports import AdminCalls

RECORDS = 25
_MOST_NAMES = 500
_MOST_GROUPS = 200
FILTERED = ("model", "key", "user", "org")


@dataclass(frozen=True, slots=True)
class Summary:
    """Of everything that matches."""

    series: Row
    breakdown: Row
    latency: Row
    ttft: Row
    all_latency: Row
    all_ttft: Row


class UsageApi:
    """Every method raises ConsoleError."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def names(self, wanted: UsageFilter) -> dict[str, dict[str, str]]:
        """For each of FILTERED: values and names of those with requests in the period."""
        answers = await asyncio.gather(
            *(
                self._calls.get("/usage/aggregate", wanted.period() | {"group_by": one, "limit": _MOST_NAMES})
                for one in FILTERED
            )
        )
        return {name: names_of(answer, name) for name, answer in zip(FILTERED, answers, strict=True)}

    async def summary(self, wanted: UsageFilter, dimension: str) -> Summary:
        """Series, breakdown and percentiles at once."""
        query = wanted.query()
        grouped = query | {"group_by": dimension, "limit": _MOST_GROUPS}
        return Summary(
            *await asyncio.gather(
                self._calls.get("/usage/series", query | {"bucket": wanted.bucket}),
                self._calls.get("/usage/aggregate", grouped),
                self._calls.get("/usage/latency", grouped),
                self._calls.get("/usage/ttft", grouped),
                self._calls.get("/usage/latency", query),
                self._calls.get("/usage/ttft", query),
            )
        )

    async def records(self, wanted: UsageFilter, after: str | None) -> tuple[list[Row], str | None]:
        """The newest first, and where the next page begins."""
        answer = await self._calls.get("/usage", wanted.query() | {"limit": RECORDS, "after": after})
        following = answer.get("next")
        return rows(answer.get("items")), text(following) if following else None
