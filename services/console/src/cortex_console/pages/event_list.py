"""A list of events that follows what happens: filters, details, and the chain that an event is part of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nicegui import events, ui

from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components import table
from cortex_console.components.buttons import button, link_button
from cortex_console.components.dialogs import dialog
from cortex_console.components.filters import choice, search_field
from cortex_console.components.moments import ago
from cortex_console.components.page import PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box, facts, heading, hint
from cortex_console.domain.event_words import Happening, chain, matches, topic
from cortex_console.domain.formatting import NOTHING, time_cells, time_text
from cortex_console.ports import Batch

PAGE = 100
CHAIN = 500
TYPES: Mapping[str, str] = {
    "model.*": "Models",
    "model.state_changed": "States of models",
    "container.*": "Engines",
    "container.failed,placement.rejected,upstream.unhealthy,upstream.suspected": "Trouble",
    "upstream.*": "Health",
    "placement.*": "Placement",
    "node.*": "Hosts",
    "key.*": "API keys",
    "user.*,org.*": "Users and organisations",
    "webhook.*": "Webhooks",
    "recipe.*": "Recipes",
    "gguf.*": "Model files",
}
_CLAMPED = '<span class="c-clamp" :title="props.row.%s">{{ props.row.%s }}</span>'
_ROW_CLICK = "(event, row) => { if (!event.target.closest('a, button')) emit(row.id); }"
SINCE: Mapping[str, str] = {"1": "Last hour", "24": "Last 24 hours", "168": "Last 7 days"}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a list is about, whatever its filters say."""

    model_id: str = ""
    types: str = ""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Models by id."""
    correlation: str = ""
    """What the filter begins with."""


class EventList:
    """The list of one browser."""

    def __init__(self, context: PageContext, scope: Scope) -> None:
        self._api = WatchingApi(context.api)
        self._scope = scope
        self._shown: dict[str, Happening] = {}

    async def build(self) -> None:
        """Draw it."""
        with box("c-filters").props('role="search"'):
            self._make_filters()
        about = () if self._scope.model_id else (table.Column("about", "Model", table.LINK, sort_by="-"),)
        columns = (
            table.Column("at", "When", table.TIME, sort_by="-"),
            table.Column("type", "Event", table.BADGE, sort_by="-"),
            *about,
            table.Column("words", "What", _CLAMPED, sort_by="-", wide=True),
        )
        self._table = table.Table("Events", columns, on_act=self._act, page_size=0)
        self._table.element.on("rowClick", self._on_row, js_handler=_ROW_CLICK)
        self._table.element.classes("c-clickable")
        self._paging = Paging(self._table, self._read, noun="event", count=self._count)
        await self._paging.first()

    async def on_batch(self, batch: Batch) -> None:
        """Follow what happens."""
        wanted = self._wanted_types()
        if self._live.value and (batch.resync or any(_takes(wanted, topic(event.type)) for event in batch.events)):
            await self._paging.reload()

    def _make_filters(self) -> None:
        if not self._scope.types:
            self._type = choice("Type", TYPES, self._anew)
        self._since = choice("Since", SINCE, self._anew)
        if not self._scope.model_id:
            self._model = choice("Model", self._scope.names, self._anew)
        placeholder = "Request id"
        self._correlation = search_field(
            "Events of one request", self._anew, value=self._scope.correlation, placeholder=placeholder
        )
        self._live = ui.switch("Live", value=True, on_change=self._follow_again).classes("c-switch")
        box("c-spring")
        self._count = Text("span", "", "c-hint").props('role="status"')

    async def _anew(self) -> None:
        await self._paging.first()

    async def _follow_again(self) -> None:
        if self._live.value:
            await self._paging.reload()

    def _wanted_types(self) -> list[str]:
        chosen = self._scope.types or self._type.value or ""
        return [part for part in str(chosen).split(",") if part]

    async def _read(self, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        now = datetime.now(UTC)
        hours = self._since.value
        query = {
            "type": ",".join(self._wanted_types()) or None,
            "model": self._scope.model_id or self._model.value or None,
            "correlation": (self._correlation.value or "").strip() or None,
            "since": (now - timedelta(hours=float(hours))).isoformat() if hours else None,
            "after": after,
            "limit": PAGE,
        }
        page = await self._api.happenings(query)
        self._shown |= {str(one.sequence): one for one in page.items}
        return [self._row(one, now) for one in page.items], str(page.following) if page.following else None

    def _row(self, one: Happening, now: datetime) -> dict[str, object]:
        acts = [
            table.Act("details", "Details", "o_data_object").cell(),
            table.Act("chain", "What led to it, and what followed", "o_account_tree").cell(),
        ]
        return {
            "id": str(one.sequence),
            "row_name": one.topic,
            "type": one.topic,
            "type_tone": one.tone.value,
            "about": self._scope.names.get(one.model_id, "deleted" if one.model_id else NOTHING),
            "about_href": f"/models/{one.model_id}" if one.model_id in self._scope.names else None,
            "words": one.words,
            "actions": acts,
        } | time_cells("at", one.at, now)

    async def _on_row(self, event: events.GenericEventArguments) -> None:
        await self._act(str(event.args), "details")

    async def _act(self, key: str, act: str) -> None:
        one = self._shown.get(key)
        if one is None:
            return
        if act == "chain":
            await show_chain(self._api, one)
        else:
            await show_details(self._api, one)


async def show_details(api: WatchingApi, one: Happening) -> None:
    """Everything that is known of an event."""
    with dialog(one.topic) as made:
        made.classes("c-dialog-wide")
        heading(one.topic, 2)
        if one.words:
            Text("p", one.words, "c-p")
        facts(
            {
                "Time": time_text(one.at),
                "From": one.source,
                "Sequence": str(one.sequence),
                "Request": one.correlation or NOTHING,
                "Follows from": one.causation or "nothing",
            }
        )
        Text("pre", json.dumps(dict(one.data), indent=2, ensure_ascii=False), "c-pre").props('tabindex="0"')
        with box("c-dialog-foot"):
            if one.correlation:
                button("Its chain", lambda: made.submit(True), icon="o_account_tree")
            button("Close", lambda: made.submit(False), kind="primary")
    follow = await made
    made.delete()
    if follow:
        await show_chain(api, one)


async def show_chain(api: WatchingApi, one: Happening) -> None:
    """All events of the same request, each below what it follows from."""
    found = [one]
    if one.correlation:
        page = await api.happenings({"correlation": one.correlation, "order": "oldest", "limit": CHAIN})
        found = list(page.items) or found
    with dialog("The chain of an event") as made:
        made.classes("c-dialog-wide")
        heading("What led to it, and what followed", 2)
        hint(f"Request {one.correlation}" if one.correlation else "It belongs to no request.")
        with box("c-chain").props('tabindex="0" role="list"'):
            for depth, step in chain(found):
                _chain_row(depth, step, current=step.id == one.id)
        with box("c-dialog-foot"):
            if one.correlation:
                link_button("In the list", f"/events?correlation={one.correlation}")
            button("Close", made.close, kind="primary")
    await made
    made.delete()


def _chain_row(depth: int, step: Happening, *, current: bool) -> None:
    row = box(f"c-chain-row{' c-chain-current' if current else ''}").props('role="listitem"')
    with row.style(f"padding-left:{8 + depth * 18}px"):
        Text("span", step.topic, f"c-badge c-dot c-{step.tone.value}")
        Text("span", step.words, "c-grow c-chain-words")
        ago(step.at)


def _takes(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(matches(pattern, name) for pattern in patterns)
