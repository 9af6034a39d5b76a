"""Whether engines answer: every endpoint, its verdict and its past."""

import asyncio
from datetime import UTC, datetime, timedelta

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components import notify, table
from cortex_console.components.badge import stat
from cortex_console.components.buttons import button, link_button
from cortex_console.components.dialogs import dialog
from cortex_console.components.empty import empty_state
from cortex_console.components.filters import choice, search_field
from cortex_console.components.header import page_header
from cortex_console.components.moments import ago
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, card, heading
from cortex_console.domain.shapes import texts
from cortex_console.domain.upstreams import VERDICTS, Upstream, counts, upstream_row
from cortex_console.pages.event_list import EventList, Scope
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

REFRESH_S = 10.0
_PAST = """<span class="c-timeline c-timeline-thin" role="img" :aria-label="props.row.%s_words">
<span v-for="(part, index) in props.row.%s" :key="index" :class="'c-timeline-part c-timeline-' + part.tone"
:style="{ flexGrow: part.share }" :title="part.words"></span></span>"""
_COLUMNS = (
    table.Column("model", "Model, address", table.TWO_LINES, wide=True),
    table.Column("engine", "Engine", table.TAG),
    table.Column("where", "Host"),
    table.Column("verdict", "Health", table.BADGE_NOTE, wide=True),
    table.Column("since", "Since", table.TIME, sort_by="since_at"),
    table.Column("load", "Load"),
    table.Column("kv", "KV cache", align="right"),
    table.Column("past", "Last 24 hours", _PAST, sort_by="-"),
)


class HealthPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = WatchingApi(context.api)
        self._upstreams: list[Upstream] = []
        self._events: EventList | None = None

    async def build(self) -> None:
        """Draw it."""
        context = self._context
        with page_header("Health", "Every engine that requests may go to, and what its last probe said."):
            button("Probe all now", self._probe, icon="o_refresh", why_not=context.why_not(Right.MODELS_OPERATE))
            if context.may(Right.UPSTREAMS_WRITE):
                link_button("Upstreams of others", "/settings", icon="o_settings")
        self._stats = box("c-stats")
        self._filters = box("c-filters").props('role="search"')
        with self._filters:
            self._search = search_field("Search endpoints", self._show)
            self._verdict = choice("Health", VERDICTS, self._show)
            self._where = choice("Run by", {"own": "Cortex", "external": "Others"}, self._show)
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')
        self._empty = box("")
        self._table = table.Table("Endpoints", _COLUMNS, on_act=self._act)
        await self._read()
        if context.may(Right.EVENTS_READ):
            with card("What changed"):
                await self._build_events()
        context.on_events(self._on_events)
        ui.timer(REFRESH_S, self._read, immediate=False)

    async def _build_events(self) -> None:
        models = await ModelsApi(self._context.api).list_all(archived=True)
        names = {model.id: model.name for model in models}
        self._events = EventList(self._context, Scope(types="upstream.*", names=names))
        await self._events.build()

    async def _read(self) -> None:
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        upstreams, suspected = await asyncio.gather(self._api.upstreams(), self._suspected(since))
        self._upstreams = [Upstream.of(one) for one in upstreams]
        found = counts(self._upstreams)
        self._stats.clear()
        with self._stats:
            stat("Healthy", f"{found['healthy']} of {len(self._upstreams)}", "answer their probes")
            stat("Unhealthy", str(found["unhealthy"]), "get no requests")
            stat("On the way", str(found["loading"] + found["unprobed"]), "loading, or not probed yet")
            stat("Suspected", suspected, "told by the gateway in the last hour")
        self._show()

    async def _suspected(self, since: str) -> str:
        if not self._context.may(Right.EVENTS_READ):
            return "–"
        found = await self._api.raw_events({"type": "upstream.suspected", "since": since, "limit": 100})
        return str(len(found)) if len(found) < 100 else "100 or more"

    def _show(self) -> None:
        now = datetime.now(UTC)
        wanted = (self._search.value or "", self._verdict.value or "", self._where.value or "")
        shown = [one for one in self._upstreams if one.matches(*wanted)]
        history = table.Act("history", "History", "o_history").cell()
        self._table.show([upstream_row(one, now) | {"actions": [history]} for one in shown])
        self._count.text = f"{len(shown)} of {len(self._upstreams)} endpoints"
        self._filters.visible = self._table.element.visible = bool(self._upstreams)
        self._empty.clear()
        if not self._upstreams:
            with self._empty:
                text = "Start a model, or add an engine that others run below Settings."
                empty_state("o_monitor_heart", "Nothing to probe", text, lambda: link_button("Models", "/models"))

    async def _probe(self) -> None:
        probed = texts((await self._api.probe_all()).get("replicas"))
        notify.done("1 endpoint is probed now." if len(probed) == 1 else f"{len(probed)} endpoints are probed now.")
        await self._read()

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("upstream.", "container.", "model."):
            await self._read()
        if self._events is not None:
            await self._events.on_batch(batch)

    async def _act(self, key: str, act: str) -> None:
        one = next((one for one in self._upstreams if one.id == key), None)
        if one is not None:
            await _show_history(one)


async def _show_history(one: Upstream) -> None:
    with dialog(f"Health of {one.model}") as made:
        heading(f"Health of {one.model}", 2)
        Text("p", one.url, "c-hint c-mono")
        with box("c-list c-turns").props('tabindex="0" role="list"'):
            for turn in reversed(one.turns):
                with box("c-list-row").props('role="listitem"'):
                    Text("span", turn.state, f"c-badge c-dot c-{turn.tone.value}")
                    Text("span", turn.reason, "c-grow c-muted")
                    ago(turn.at.isoformat())
            if not one.turns:
                Text("p", "Its health has not changed since it was first probed.", "c-hint")
        with box("c-dialog-foot"):
            button("Close", made.close, kind="primary")
    await made
    made.delete()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await HealthPage(context).build()


HEALTH = Page("/health", "Health", build, Right.MODELS_READ, icon="o_monitor_heart", group="Observe")
