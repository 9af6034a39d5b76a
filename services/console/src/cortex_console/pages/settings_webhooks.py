"""Webhooks: where events are posted to."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from nicegui import ui

from cortex_console.adapters.settings_api import WebhooksApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.page import Page, PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.secret import show_secret
from cortex_console.components.text import Text, box
from cortex_console.domain.shapes import Row, text
from cortex_console.domain.webhooks import EVENT_CHOICES, test_outcome, webhook_row
from cortex_console.pages.settings_sections import SETTINGS_PATH, settings_header
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_COLUMNS = (
    table.Column("name", "Name, address", table.TWO_LINES, wide=True),
    table.Column("events", "Events", table.MONO, wide=True),
    table.Column("state", "State", table.BADGE_NOTE, wide=True),
    table.Column("waiting", "Waiting", align="right", sort_by="waiting_sort"),
    table.Column("sent", "Delivered", table.TIME, sort_by="sent_sort"),
)
_OVERLAPS = {0: "None: the old one ends at once", 3600: "1 hour", 86400: "1 day", 604800: "7 days"}
_SIGNED = "The receiver verifies with it that requests come from here. docs/webhooks.md shows how."


class WebhooksPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = WebhooksApi(context.api)
        self._known: dict[str, Row] = {}

    async def build(self) -> None:
        """Draw it."""
        lead = "Events posted to addresses of yours, signed, repeated until they are taken."
        with settings_header(self._context, "Webhooks", lead):
            why_not = self._context.why_not(Right.WEBHOOKS_WRITE)
            button("New webhook", self._create, icon="o_add", kind="primary", why_not=why_not)
        self._empty = box("")
        self._table = table.Table("Webhooks", _COLUMNS, on_act=self._act, page_size=0)
        count = Text("span", "", "c-hint").props('role="status"')
        self._paging = Paging(self._table, self._read, noun="webhook", count=count)
        await self._reload()
        self._context.on_events(self._on_events)

    async def _on_events(self, batch: Batch) -> None:
        if batch.resync or batch.events:  # every event may be delivered by one of them
            await self._reload()

    async def _reload(self) -> None:
        await self._paging.reload()
        nothing = not self._paging.rows
        self._table.element.visible = not nothing
        self._empty.clear()
        if nothing:
            with self._empty:
                empty_state(
                    "o_webhook",
                    "No webhooks yet",
                    "Make one for the people on duty: model.state_changed and container.failed say when something is wrong.",
                )

    async def _read(self, after: str | None) -> tuple[Sequence[dict[str, object]], str | None]:
        found = await self._api.list_some(after)
        self._known |= {text(one.get("id")): one for one in found.items}
        now = datetime.now(UTC)
        return [
            webhook_row(one, now) | {"actions": webhook_acts(self._context, one)} for one in found.items
        ], found.next

    async def _create(self) -> None:
        made: dict[str, str] = {}

        async def submit(values: Values) -> None:
            answer = await self._api.create(values)
            made.update(name=values["name"], secret=text(answer.get("secret")))

        if await ask_form("New webhook", webhook_fields({}), "Make", submit):
            await self._reload()
            await show_secret(f"Secret of {made['name']}", _SIGNED, made["secret"])

    async def _act(self, key: str, act: str) -> None:
        one = self._known.get(key)
        if one is not None:
            await perform(act, one, self._api, self._reload)


def webhook_acts(context: PageContext, one: Row) -> list[dict[str, object]]:
    """What can be done with a webhook."""
    why_not = context.why_not(Right.WEBHOOKS_WRITE)
    toggle = ("disable", "Switch off", "o_pause") if one.get("enabled") else ("enable", "Switch on", "o_play_arrow")
    return [
        table.Act("test", "Test", "o_send", why_not, first=True).cell(),
        table.Act("edit", "Edit", "o_edit", why_not).cell(),
        table.Act(*toggle, why_not).cell(),
        table.Act("rotate", "New secret", "o_key", why_not).cell(),
        table.Act("delete", "Delete", "o_delete", why_not, danger=True).cell(),
    ]


def webhook_fields(one: Row) -> list[Field]:
    """The form."""
    events = [str(event) for event in one.get("events") or ("*",)]
    choices = dict(EVENT_CHOICES) | {event: event for event in events if event not in EVENT_CHOICES}
    hint = "Progress (container.pulling, gguf.merging) comes only to who names it. Type a pattern and press Enter to add it."
    return [
        Field("name", "Name", value=text(one.get("name")), required=True),
        Field(
            "url",
            "Address",
            value=text(one.get("url")),
            hint="http or https; it gets a POST for each event",
            required=True,
        ),
        Field("events", "Events", "several", events, hint, choices, required=True, new_values=True),
    ]


async def perform(act: str, one: Row, api: WebhooksApi, reload: Callable[[], Awaitable[None]]) -> None:
    """Do it, telling before and after. Raises ConsoleError."""
    webhook_id, name = text(one.get("id")), text(one.get("name"))
    if act == "test":
        answer = await api.test(webhook_id)
        (notify.done if answer.get("delivered") else notify.tell)(test_outcome(answer))
    elif act == "edit":
        await _edit(one, api)
    elif act == "rotate":
        await _rotate(one, api)
    elif act == "delete":
        told = (
            "Nothing is sent any more; what waits is dropped.",
            "Its delivery log is deleted. This cannot be undone.",
        )
        if not await confirm(Question(f"Delete {name}?", told, "Delete", danger=True)):
            return
        await api.delete(webhook_id)
        notify.done(f"{name} is deleted.")
        ui.navigate.to(WEBHOOKS.path)
        return
    elif act == "disable":
        told = (
            "Nothing is sent any more, and what waits is cancelled.",
            "Events until it is on again are not sent by themselves.",
        )
        if not await confirm(Question(f"Switch {name} off?", told, "Switch off")):
            return
        await api.update(one, {"enabled": False})
    else:
        await api.update(one, {"enabled": True})
        notify.done(f"{name} is on: events are sent from now on.")
    await reload()


async def _edit(one: Row, api: WebhooksApi) -> None:
    async def submit(values: Values) -> None:
        await api.update(one, values)
        notify.done(f"{values['name']} is changed.")

    await ask_form(f"Edit {text(one.get('name'))}", webhook_fields(one), "Save", submit)


async def _rotate(one: Row, api: WebhooksApi) -> None:
    made: list[str] = []

    async def submit(values: Values) -> None:
        made.append(await api.rotate(text(one.get("id")), int(values["overlap"])))

    overlap = Field(
        "overlap", "Both secrets sign for", "choice", 86400, "Time to give the receiver the new one", _OVERLAPS
    )
    if await ask_form(f"New secret for {text(one.get('name'))}", [overlap], "Make", submit):
        await show_secret(f"New secret of {text(one.get('name'))}", _SIGNED, made[-1])


async def build(context: PageContext) -> None:
    """Draw the page."""
    await WebhooksPage(context).build()


WEBHOOKS = Page(f"{SETTINGS_PATH}/webhooks", "Webhooks", build, Right.WEBHOOKS_READ, belongs_to=SETTINGS_PATH)
