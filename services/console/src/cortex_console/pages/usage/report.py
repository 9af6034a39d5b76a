"""The report: figures, charts, breakdown, records."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cortex_console.adapters.usage_api import Summary, UsageApi
from cortex_console.components import notify, table
from cortex_console.components.badge import stat
from cortex_console.components.buttons import button, link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.soon import soon
from cortex_console.components.text import Text, box, card, labelled
from cortex_console.domain.formatting import count_text
from cortex_console.domain.shapes import rows, whole
from cortex_console.domain.usage import (
    DIMENSIONS,
    Percentiles,
    UsageFilter,
    failed_share,
    group_row,
    milliseconds_text,
    percentiles_by_value,
    record_row,
    totals_of,
    within_text,
)
from cortex_console.errors import ConsoleError
from cortex_console.pages.usage.charts import UsageCharts
from cortex_console.pages.usage.filters import UsageFilters

REFRESH_S = 20.0
_NAME = """<a v-if="props.row.%s_href" class="c-link" :href="props.row.%s_href">{{ props.row.%s }}</a>
<span v-else>{{ props.row.%s }}</span>"""
_TWO = """<span class="c-two"><span>{{ props.row.%s }}</span>
<span v-if="props.row.%s_note" class="c-hint">{{ props.row.%s_note }}</span></span>"""
_GROUPS = (
    table.Column("name", "Name", _NAME, wide=True),
    table.Column("requests", "Requests", align="right", sort_by="requests_sort"),
    table.Column("failed", "Failed", align="right", sort_by="failed_sort"),
    table.Column("prompt", "Tokens in", align="right", sort_by="prompt_sort"),
    table.Column("completion", "Tokens out", align="right", sort_by="completion_sort"),
    table.Column("latency", "Latency p50", align="right", sort_by="latency_sort"),
    table.Column("latency95", "p95", align="right", sort_by="latency95_sort"),
    table.Column("ttft", "TTFT p50", align="right", sort_by="ttft_sort"),
    table.Column("ttft95", "p95", align="right", sort_by="ttft95_sort"),
)
_RECORDS = (
    table.Column("at", "When", table.TIME, sort_by="-"),
    table.Column("model", "Model", _TWO, wide=True, sort_by="-"),
    table.Column("status", "Status", table.BADGE, sort_by="-"),
    table.Column("prompt", "In", align="right", sort_by="-"),
    table.Column("completion", "Out", align="right", sort_by="-"),
    table.Column("latency", "Latency", align="right", sort_by="-"),
    table.Column("ttft", "TTFT", align="right", sort_by="-"),
    table.Column("key", "Key", _TWO, wide=True, sort_by="-"),
)


class UsagePage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = UsageApi(context.api)
        self._names: Mapping[str, Mapping[str, str]] = {}
        self._named_period: Mapping[str, Any] | None = None
        self._reading = 0

    async def build(self) -> None:
        """Draw it; figures follow as soon as they are there."""
        with page_header("Usage", "What was asked of the models, and how fast they answered."):
            if self._context.me.user_id:
                button("Mine", self._show_mine, icon="o_person")
            self._export = link_button("Download CSV", "#", icon="o_download")
            self._export.props["download"] = True
        self._filters = UsageFilters(UsageFilter.of(self._context.query), self._changed)
        self._none = box("")
        with box("c-stack us-report") as self._report:
            self._stats = box("c-stats")
            with self._stats:
                for _ in range(4):
                    ui.skeleton(height="82px")
            self._charts = UsageCharts(self._context)
            with card(""):
                self._make_breakdown()
            with card(""):
                self._make_records()
        self._show_address()
        soon(self._read)
        ui.timer(REFRESH_S, self._refresh, immediate=False)

    def _make_breakdown(self) -> None:
        with box("c-line"):
            Text("h2", "Breakdown", "c-h2")
            box("c-spring")
            self._dimension = ui.select(DIMENSIONS, value="model", on_change=self._read_summary)
            labelled(self._dimension.props("outlined dense options-dense").classes("c-select"), "Broken down by")
        self._groups = table.Table("Breakdown", _GROUPS)

    def _make_records(self) -> None:
        with box("c-line"):
            Text("h2", "Requests", "c-h2")
            box("c-spring")
            count = Text("span", "", "c-hint").props('role="status"')
        listed = table.Table("Requests", _RECORDS, page_size=0)
        self._paging = Paging(listed, self._read_records, noun="request", count=count)

    def _show_mine(self) -> None:
        ui.navigate.to(self._filters.wanted.address(user=self._context.me.user_id or ""))

    def _show_address(self) -> None:
        self._export.props["href"] = self._filters.wanted.export()

    async def _changed(self) -> None:
        wanted = self._filters.wanted
        if wanted != UsageFilter.of(
            {"range": wanted.range, "since": wanted.since, "until": wanted.until} | _given(wanted)
        ):
            return  # a custom period that is not complete yet
        ui.navigate.history.replace(wanted.address())
        self._show_address()
        await self._read()

    async def _read(self) -> None:
        await asyncio.gather(self._read_listed(), self._read_summary())

    async def _read_listed(self) -> None:
        await self._read_names()
        await self._paging.first()

    async def _refresh(self) -> None:
        if self._filters.wanted.range == "custom":
            return
        try:
            await self._read_summary()
            await self._paging.reload()
        except ConsoleError as error:
            if error.is_signed_out:
                notify.show_error(error)

    async def _read_names(self) -> None:
        period = self._filters.wanted.period()
        if period != self._named_period:
            self._names = await self._api.names(self._filters.wanted)
            self._named_period = period
            self._filters.show_names(self._names)

    async def _read_summary(self) -> None:
        self._reading += 1
        mine, wanted, dimension = self._reading, self._filters.wanted, str(self._dimension.value)
        found = await self._api.summary(wanted, dimension)
        if mine == self._reading:  # another filter may have been chosen meanwhile
            self._show(found, wanted, dimension)

    def _show(self, found: Summary, wanted: UsageFilter, dimension: str) -> None:
        totals = totals_of(found.breakdown)
        self._charts.show(found.series)
        times = percentiles_by_value(found.latency), percentiles_by_value(found.ttft)
        self._groups.show([group_row(one, dimension, wanted, times) for one in rows(found.breakdown.get("items"))])
        taken = percentiles_by_value(found.all_latency).get("", Percentiles())
        first = percentiles_by_value(found.all_ttft).get("", Percentiles())
        requests = whole(totals.get("requests"))
        self._stats.clear()
        with self._stats:
            stat("Requests", f"{requests:,}", failed_share(totals))
            stat(
                "Tokens",
                count_text(whole(totals.get("total_tokens"))),
                f"{count_text(whole(totals.get('prompt_tokens')))} in "
                f"({count_text(whole(totals.get('cached_tokens')))} cached), "
                f"{count_text(whole(totals.get('completion_tokens')))} out",
            )
            stat("Latency, median", milliseconds_text(taken.p50), within_text(taken))
            stat("First token, median", milliseconds_text(first.p50), within_text(first))
        self._show_nothing(requests == 0)

    def _show_nothing(self, nothing: bool) -> None:
        self._report.visible = not nothing
        self._none.clear()
        if nothing:
            with self._none:
                empty_state(
                    "o_bar_chart",
                    "No requests",
                    "Nothing was asked in this period with this filter. Take a longer period, or ask something.",
                    lambda: link_button("Playground", "/playground", icon="o_forum"),
                )

    async def _read_records(self, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        found, following = await self._api.records(self._filters.wanted, after)
        now, names = datetime.now(UTC), self._names
        shown = [record_row(one, names.get("key", {}), names.get("user", {}), now) for one in found]
        return shown, following


def _given(wanted: UsageFilter) -> dict[str, str]:
    names = ("model", "key", "user", "org", "engine", "status")
    return {name: value for name in names if (value := getattr(wanted, name))}
