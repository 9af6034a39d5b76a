"""One webhook: how it fares, what was sent, and sending it again."""

from collections.abc import Sequence
from datetime import UTC, datetime

from nicegui import ui

from cortex_console.adapters.settings_api import WebhooksApi
from cortex_console.components import notify, table
from cortex_console.components.badge import badge
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.filters import choice
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box, card, facts, heading
from cortex_console.domain.formatting import NOTHING, ago_text
from cortex_console.domain.shapes import Row, text, whole
from cortex_console.domain.webhooks import STATUSES, attempt_lines, delivery_row, events_text, webhook_state
from cortex_console.pages.settings_sections import SETTINGS_PATH
from cortex_console.pages.settings_webhooks import WEBHOOKS, perform
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

WAITING_EVERY_S = 3.0
_COLUMNS = (
    table.Column("at", "Happened", table.TIME, sort_by="-"),
    table.Column("event", "Event", table.NAMED, sort_by="-", wide=True),
    table.Column("status", "Outcome", table.BADGE_NOTE, sort_by="-", wide=True),
    table.Column("attempts", "Attempts", align="right", sort_by="-"),
)


class WebhookPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = WebhooksApi(context.api)
        self._id = context.parameters["webhook_id"]
        self._webhook: Row = {}

    async def build(self) -> None:
        """Draw it."""
        self._webhook = await self._api.get(self._id)
        why_not = self._context.why_not(Right.WEBHOOKS_WRITE)
        with page_header(
            text(self._webhook.get("name")), text(self._webhook.get("url")), back=(WEBHOOKS.path, "Webhooks")
        ):
            button("Test", lambda: self._perform("test"), icon="o_send", kind="primary", why_not=why_not)
            button("Edit", lambda: self._perform("edit"), icon="o_edit", why_not=why_not)
            self._toggle = button("Switch off", self._on_toggle, icon="o_pause", why_not=why_not)
            button("New secret", lambda: self._perform("rotate"), icon="o_key", why_not=why_not)
            button("Delete", lambda: self._perform("delete"), icon="o_delete", why_not=why_not)
        self._state = card()
        with box("c-line"):
            heading("Deliveries")
            box("c-spring")
            count = Text("span", "", "c-hint").props('role="status"')
            self._status = choice("Outcome", STATUSES, self._changed)
            button("Send a range again", self._send_range, icon="o_replay", why_not=why_not)
        listed = table.Table("Deliveries", _COLUMNS, on_act=self._act, page_size=0)
        self._paging = Paging(listed, self._read, noun="delivery", nouns="deliveries", count=count)
        await self._reload()
        self._context.on_events(self._on_events)
        ui.timer(WAITING_EVERY_S, self._read_waiting, immediate=False)

    async def _on_events(self, batch: Batch) -> None:
        await self._reload()

    async def _read_waiting(self) -> None:
        if whole(self._webhook.get("pending")):  # no event tells that a delivery arrived
            await self._reload()

    async def _changed(self) -> None:
        await self._paging.first()

    async def _reload(self) -> None:
        self._webhook = await self._api.get(self._id)
        self._show_state()
        await self._paging.reload()

    def _show_state(self) -> None:
        one, now = self._webhook, datetime.now(UTC)
        state, tone, note = webhook_state(one, now)
        on = bool(one.get("enabled"))
        self._toggle.text = "Switch off" if on else "Switch on"
        self._toggle.props(f"icon={'o_pause' if on else 'o_play_arrow'}")
        self._state.clear()
        with self._state:
            with box("c-line"):
                badge(state, tone)
                if note:
                    Text("span", note, "c-hint")
            facts(
                {
                    "Events": events_text(one),
                    "Waiting": str(whole(one.get("pending"))),
                    "Delivered": ago_text(one.get("last_success_at"), now),
                    "Failed": ago_text(one.get("last_failure_at"), now),
                    "Paused until": text(one.get("paused_until"), NOTHING)[:19].replace("T", " "),
                    "Seen up to": f"event {whole(one.get('cursor'))}",
                    "Made by": text(one.get("created_by"), NOTHING),
                }
            )

    async def _read(self, after: str | None) -> tuple[Sequence[dict[str, object]], str | None]:
        found = await self._api.deliveries(self._id, {"status": self._status.value or None}, after)
        now, why_not = datetime.now(UTC), self._context.why_not(Right.WEBHOOKS_WRITE)
        acts = [
            table.Act("show", "Attempts", "o_list", first=True).cell(),
            table.Act("again", "Send again", "o_replay", why_not).cell(),
        ]
        return [delivery_row(one, now) | {"actions": acts} for one in found.items], found.next

    async def _act(self, key: str, act: str) -> None:
        if act == "again":
            await self._api.redeliver(self._id, key)
            notify.done("It is sent again, under its own id.")
            await self._reload()
        else:
            await _show(await self._api.delivery(self._id, key))

    async def _on_toggle(self) -> None:
        await self._perform("disable" if self._webhook.get("enabled") else "enable")

    async def _perform(self, act: str) -> None:
        await perform(act, self._webhook, self._api, self._reload)

    async def _send_range(self) -> None:
        async def submit(values: Values) -> None:
            wanted = {name: int(values[name] or 0) for name in ("after", "until")}
            queued = await self._api.redeliver_range(self._id, wanted | {"only_failed": values["only_failed"]})
            notify.done(f"{queued} event{'s' * (queued != 1)} queued.")

        fields = [
            Field("after", "After number", "number", 0, "Numbers of the event log, as in the list of deliveries"),
            Field("until", "Up to number", "number", whole(self._webhook.get("cursor"))),
            Field("only_failed", "Only what was given up or cancelled", "switch", True),
        ]
        if await ask_form("Send a range again", fields, "Send", submit, text="A thousand events at most."):
            await self._reload()


async def _show(delivery: Row) -> None:
    title = text(delivery.get("event_type"))
    with dialog(title, wide=True) as made:
        heading(title, 2)
        facts({"Event": text(delivery.get("event_id")), "Kind": text(delivery.get("kind"))})
        lines = attempt_lines(delivery)
        if not lines:
            Text("p", "Nothing was sent yet.", "c-hint")
        with box("c-attempts"):
            for at, told, took in lines:
                Text("span", at)
                Text("span", told)
                Text("span", took)
        with box("c-dialog-foot"):
            button("Close", made.close, kind="primary")
    await made
    made.delete()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await WebhookPage(context).build()


WEBHOOK = Page(f"{WEBHOOKS.path}/{{webhook_id}}", "Webhook", build, Right.WEBHOOKS_READ, belongs_to=SETTINGS_PATH)
