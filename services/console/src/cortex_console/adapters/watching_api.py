"""What the pages that watch the installation ask the admin API."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from cortex_console.domain.event_words import Happening
from cortex_console.domain.model_detail import ModelDetail
from cortex_console.domain.shapes import Row, number, row, rows, text, texts
from cortex_console.domain.why_tree import Why
from cortex_console.ports import AdminCalls, Query


@dataclass(frozen=True, slots=True)
class LogPart:
    """Some lines of an engine; `ended` says why there will be no more."""

    lines: tuple[str, ...] = ()
    skipped: int = 0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class HappeningsPage:
    """A page of events; `following` is where the next begins, None on the last."""

    items: tuple[Happening, ...]
    following: int | None


class WatchingApi:
    """Every method raises ConsoleError."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def model(self, reference: str) -> ModelDetail:
        """One model with its replicas."""
        return ModelDetail.of(await self._calls.get(f"/models/{reference}"))

    async def change_model(self, model_id: str, patch: Mapping[str, object], version: int) -> None:
        """Change some options, unless somebody else changed the model meanwhile."""
        await self._calls.patch(f"/models/{model_id}", dict(patch), version=version)

    async def why(self, model_id: str) -> Why:
        """Why a model is in its state."""
        return Why.of(await self._calls.get(f"/models/{model_id}/why"))

    async def happenings(self, query: Query) -> HappeningsPage:
        """Events by the filter of the API."""
        answer = await self._calls.get("/events", query)
        following = number(answer.get("next"))
        items = tuple(Happening.of(one) for one in rows(answer.get("items")))
        return HappeningsPage(items, int(following) if following is not None else None)

    async def raw_events(self, query: Query) -> list[Row]:
        """The same, as the API tells them."""
        return rows((await self._calls.get("/events", query)).get("items"))

    async def series(self, query: Query) -> Row:
        """Usage per step."""
        return await self._calls.get("/usage/series", query)

    async def percentiles(self, query: Query) -> tuple[Row, Row]:
        """Of the time to the first token and of the whole duration: the row of everything together, each."""
        ttft, latency = await asyncio.gather(
            self._calls.get("/usage/ttft", query), self._calls.get("/usage/latency", query)
        )
        first, second = rows(ttft.get("items")), rows(latency.get("items"))
        return (first[0] if first else {}), (second[0] if second else {})

    async def requests(self, query: Query) -> Row:
        """Records of usage."""
        return await self._calls.get("/usage", query)

    async def throughput(self, window_s: int) -> Row:
        """Requests and tokens of the last seconds, in all and by model."""
        return await self._calls.get("/system/throughput", {"window_s": window_s})

    async def upstreams(self) -> list[Row]:
        """Every endpoint with its verdict and history."""
        return rows((await self._calls.get("/upstreams")).get("items"))

    async def probe_all(self) -> Row:
        """Probe every endpoint now."""
        return await self._calls.post("/upstreams/refresh-health")

    async def items(self, path: str, query: Query | None = None) -> list[Row]:
        """`items` of any list."""
        return rows((await self._calls.get(path, query)).get("items"))

    async def all_of(self, paths: Sequence[str]) -> list[Row]:
        """Several answers at once."""
        return list(await asyncio.gather(*(self._calls.get(path) for path in paths)))

    async def log_lines(self, model_id: str, ordinal: int, tail: int) -> list[str]:
        """The last lines of one replica."""
        answer = await self._calls.get(f"/models/{model_id}/logs", {"ordinal": ordinal, "tail": tail})
        return texts(answer.get("lines"))

    async def follow_log(self, model_id: str, ordinal: int, tail: int) -> AsyncGenerator[LogPart]:
        """The last lines of one replica, and what comes, until it ends."""
        query = {"ordinal": ordinal, "tail": tail, "follow": "true"}
        async with self._calls.stream(f"/models/{model_id}/logs", query) as chunks:
            async for part in read_log(chunks):
                yield part


async def read_log(chunks: AsyncIterator[bytes]) -> AsyncGenerator[LogPart]:
    """Parts of a stream of server-sent events, however it is cut into chunks."""
    waiting = b""
    async for chunk in chunks:
        *blocks, waiting = (waiting + chunk).split(b"\n\n")
        for block in blocks:
            part = _part(block.decode("utf-8", "replace"))
            if part is not None:
                yield part


def _part(block: str) -> LogPart | None:
    name, data = "", ""
    for line in block.split("\n"):
        kind, _, value = line.partition(":")
        if kind == "event":
            name = value.strip()
        elif kind == "data":
            data += value.removeprefix(" ")
    if not data:
        return None
    found = row(json.loads(data))
    if name == "end":
        return LogPart(ended=text(found.get("reason"), "ended"))
    return LogPart(tuple(texts(found.get("lines"))), int(number(found.get("skipped")) or 0))
