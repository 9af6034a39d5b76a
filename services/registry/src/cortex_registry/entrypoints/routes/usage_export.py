"""Route that streams usage records as CSV or as JSON lines."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from cortex_contracts.rights import Right
from cortex_kit.clock import Clock
from cortex_registry.domain.usage import Position, UsageFilter
from cortex_registry.domain.usage_periods import Window
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.usage_queries import ExportFormat, ExportQuery
from cortex_registry.errors import UnavailableError
from cortex_registry.ports import UsageReports, UsageRow

PAGE = 5000
CHUNK = 500
Page = tuple[Sequence[UsageRow], Position | None]
COLUMNS = (
    "started_at",
    "request_id",
    "model",
    "model_id",
    "engine_type",
    "task",
    "route",
    "stream",
    "status",
    "outcome",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "estimated",
    "duration_ms",
    "ttft_ms",
    "key_id",
    "user_id",
    "org_id",
    "replica_id",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
ExportOf = Annotated[ExportQuery, Query()]
_CONTENT = {"text/csv": {"schema": {"type": "string"}}, "application/x-ndjson": {"schema": {"type": "string"}}}


class UsageExportRoutes:
    """/admin/usage/export. Pages are read one at a time, so a slow client holds neither memory nor a connection."""

    def __init__(self, usage: UsageReports, clock: Clock, *, at_once: int) -> None:
        self._usage = usage
        self._clock = clock
        self._free = at_once

    def router(self) -> APIRouter:
        routes = Routes("usage")
        routes.add(
            "GET",
            "/usage/export",
            self.export,
            Right.USAGE_READ,
            response_class=StreamingResponse,
            responses={200: {"content": _CONTENT, "description": "A line a record, newest first."}},
        )
        return routes.router

    async def export(self, query: ExportOf) -> StreamingResponse:
        """Every record that matches, as CSV (text that a spreadsheet might take for a formula begins with ') or JSON lines."""
        if self._free <= 0:
            raise UnavailableError("export_busy", "Too many exports are running. Try again in a moment.")
        wanted, window = query.wanted(), query.window(self._clock.now())
        # Read before the answer begins, so that a refusal is still a refusal.
        first = await self._usage.rows(wanted, window, None, min(PAGE, query.limit or PAGE))
        form = csv_lines if query.format is ExportFormat.CSV else json_lines
        head = csv_head() if query.format is ExportFormat.CSV else ""
        kind, name = ("text/csv", "csv") if query.format is ExportFormat.CSV else ("application/x-ndjson", "jsonl")
        return StreamingResponse(
            self._stream(head, form, _Export(wanted, window, query.limit, first)),
            media_type=kind,
            headers={
                "Content-Disposition": f'attachment; filename="cortex-usage-{window.until:%Y%m%d}.{name}"',
                "Cache-Control": "no-store",
            },
        )

    async def _stream(
        self, head: str, form: Callable[[Sequence[UsageRow]], str], export: "_Export"
    ) -> AsyncGenerator[str]:
        self._free -= 1
        try:
            yield head
            async for rows in export.pages(self._usage):
                for start in range(0, len(rows), CHUNK):  # others get their turn in between
                    yield form(rows[start : start + CHUNK])
                    await asyncio.sleep(0)
        finally:
            self._free += 1


class _Export:
    """Pages of one export, up to its limit."""

    def __init__(self, wanted: UsageFilter, window: Window, limit: int | None, first: Page) -> None:
        self._wanted = wanted
        self._window = window
        self._left = limit
        self._first = first

    async def pages(self, usage: UsageReports) -> AsyncGenerator[Sequence[UsageRow]]:
        rows, following = self._first
        while True:
            yield rows
            if self._left is not None:
                self._left -= len(rows)
            if following is None or (self._left is not None and self._left <= 0):
                return
            limit = PAGE if self._left is None else min(PAGE, self._left)
            rows, following = await usage.rows(self._wanted, self._window, following, limit)


def csv_head() -> str:
    """The line of names."""
    return ",".join(COLUMNS) + "\r\n"


def csv_lines(rows: Sequence[UsageRow]) -> str:
    """RFC 4180."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        writer.writerow([harmless(row[column]) for column in COLUMNS])
    return out.getvalue()


def harmless(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def json_lines(rows: Sequence[UsageRow]) -> str:
    """One object a line."""
    return "".join(
        json.dumps({column: row[column] for column in COLUMNS}, ensure_ascii=False, default=datetime.isoformat) + "\n"
        for row in rows
    )
