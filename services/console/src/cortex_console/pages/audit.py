"""Audit: who did what, from where, before and after."""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from nicegui import ui

from cortex_console.adapters.people_api import AuditApi
from cortex_console.components import table
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.filters import choice, search_field
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box, facts, heading
from cortex_console.domain.audit import KINDS, PERIODS, audit_query, audit_row, differences
from cortex_console.domain.formatting import NOTHING, time_text
from cortex_console.domain.shapes import Row, row, text
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_COLUMNS = (
    table.Column("at", "When", table.TIME, sort_by="-"),
    table.Column("actor", "Who", table.STRONG, sort_by="-"),
    table.Column("action", "Did", table.BADGE, sort_by="-"),
    table.Column("subject", "To", table.NAMED, sort_by="-", wide=True),
    table.Column("changed", "Changed", sort_by="-", wide=True),
    table.Column("address", "From", table.MONO, sort_by="-"),
)


class AuditPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = AuditApi(context.api)
        self._known: dict[str, Row] = {}

    async def build(self) -> None:
        """Draw it."""
        with page_header("Audit", "Every change, every sign-in: who, when, from where. Entries cannot be changed."):
            button("CSV", lambda: self._export("csv"), icon="o_download")
            button("JSON lines", lambda: self._export("jsonl"), icon="o_download")
        given = self._context.query
        with box("c-filters").props('role="search"'):
            self._actor = search_field("User name", self._changed, value=given.get("actor", ""), placeholder="Who")
            self._subject = search_field(
                "Subject", self._changed, value=given.get("subject", ""), placeholder="To: model/…, user/…"
            )
            self._kind = choice("Act", KINDS, self._changed, value=given.get("kind", ""))
            self._days = choice("Time", PERIODS, self._changed)
            box("c-spring")
            count = Text("span", "", "c-hint").props('role="status"')
        listed = table.Table("Audit log", _COLUMNS, on_act=self._act, page_size=0)
        self._paging = Paging(listed, self._read, noun="entry", nouns="entries", count=count)
        await self._changed()
        self._context.on_events(self._on_events)

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("model.created", "model.updated", "model.deleted", "model.archived", "key.", "user.", "org."):
            await self._paging.reload()

    async def _changed(self) -> None:
        await self._paging.first()

    def _query(self) -> dict[str, str | None]:
        wanted = {
            "actor": self._actor.value or "",
            "subject": self._subject.value or "",
            "kind": self._kind.value or "",
            "days": self._days.value or "",
        }
        return audit_query(wanted, datetime.now(UTC))

    async def _read(self, after: str | None) -> tuple[Sequence[dict[str, object]], str | None]:
        found = await self._api.entries(self._query(), after)
        self._known |= {text(entry.get("id")): entry for entry in found.items}
        now = datetime.now(UTC)
        act = table.Act("details", "Details", "o_difference", first=True).cell()
        return [audit_row(entry, now) | {"actions": [act]} for entry in found.items], found.next

    def _export(self, form: str) -> None:
        query = {name: value for name, value in self._query().items() if value} | {"format": form}
        ui.navigate.to(f"/download/audit?{urlencode(query)}")

    async def _act(self, key: str, act: str) -> None:
        entry = self._known.get(key)
        if entry is not None:
            await _show(entry)


async def _show(entry: Row) -> None:
    title = text(entry.get("action"))
    with dialog(title, wide=True) as made:
        heading(title, 2)
        facts(
            {
                "Who": text(entry.get("actor")),
                "When": time_text(entry.get("at")),
                "To": text(entry.get("subject")),
                "From": text(entry.get("address"), NOTHING),
                "Request": text(entry.get("request_id"), NOTHING),
            }
            | {name: text(value) for name, value in row(entry.get("detail")).items() if isinstance(value, str | int)}
        )
        changes = differences(entry)
        if changes:
            with box("c-changes", "dl"):
                for change in changes:
                    Text("dt", change.name, "c-mono")
                    with box("", "dd"):
                        if change.before != NOTHING:
                            Text("del", change.before)
                        Text("ins", change.after)
        with box("c-dialog-foot"):
            button("Close", made.close, kind="primary")
    await made
    made.delete()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await AuditPage(context).build()


AUDIT = Page("/audit", "Audit", build, Right.AUDIT_READ, icon="o_policy", group="Access")
