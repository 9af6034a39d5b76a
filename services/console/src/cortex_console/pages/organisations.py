"""Organisations: what users and API keys belong to."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cortex_console.adapters.people_api import PeopleApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.empty import empty_state
from cortex_console.components.filters import search_field
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box
from cortex_console.domain.people import Organisation, organisation_row
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_COLUMNS = (
    table.Column("name", "Name", table.NAMED, wide=True),
    table.Column("users", "Users", table.LINK, sort_by="users_sort"),
    table.Column("created", "Made", table.TIME, sort_by="created_sort"),
)


class OrganisationsPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = PeopleApi(context.api)
        self._known: dict[str, Organisation] = {}

    async def build(self) -> None:
        """Draw it."""
        why_not = self._context.why_not(Right.USERS_WRITE)
        with page_header("Organisations", "Users and API keys belong to one; usage is told apart by it."):
            button("New organisation", self._create, icon="o_add", kind="primary", why_not=why_not)
        with box("c-filters").props('role="search"') as self._filters:
            self._search = search_field("Search organisations", self._changed)
            box("c-spring")
            count = Text("span", "", "c-hint").props('role="status"')
        self._empty = box("")
        self._table = table.Table("Organisations", _COLUMNS, on_act=self._act, page_size=0)
        self._paging = Paging(self._table, self._read, noun="organisation", count=count)
        await self._changed()
        self._context.on_events(self._on_events)

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("org.", "user."):
            await self._reload()

    async def _changed(self) -> None:
        await self._paging.first()
        self._show_empty()

    async def _reload(self) -> None:
        await self._paging.reload()
        self._show_empty()

    async def _read(self, after: str | None) -> tuple[Sequence[dict[str, object]], str | None]:
        found = await self._api.organisations({"q": (self._search.value or "").strip() or None}, after)
        self._known |= {one.id: one for one in found.items}
        now = datetime.now(UTC)
        return [organisation_row(one, now) | {"actions": self._acts(one)} for one in found.items], found.next

    def _acts(self, one: Organisation) -> list[dict[str, object]]:
        why_not = self._context.why_not(Right.USERS_WRITE)
        busy = f"{one.users} user{'s' * (one.users != 1)} belong to it. Move them first." if one.users else None
        return [
            table.Act("rename", "Rename", "o_edit", why_not, first=True).cell(),
            table.Act("delete", "Delete", "o_delete", why_not or busy, danger=True).cell(),
        ]

    def _show_empty(self) -> None:
        nothing = not self._paging.rows and not (self._search.value or "").strip()
        self._table.element.visible = self._filters.visible = not nothing
        self._empty.clear()
        if nothing:
            with self._empty:
                empty_state(
                    "o_apartment",
                    "No organisations yet",
                    "Make one for each team whose usage you want to tell apart, then give it users and API keys.",
                )

    async def _create(self) -> None:
        async def submit(values: Values) -> None:
            await self._api.create_organisation(values["name"])
            notify.done(f"{values['name']} is made.")

        name = Field("name", "Name", required=True, hint="As people call it, like Research")
        if await ask_form("New organisation", [name], "Make", submit):
            await self._reload()

    async def _act(self, key: str, act: str) -> None:
        one = self._known.get(key)
        if one is None:
            return
        if act == "rename":
            await self._rename(one)
        elif await confirm(
            Question(
                f"Delete {one.name}?",
                ("Usage that was recorded for it stays.", "The registry refuses it while API keys belong to it."),
                "Delete",
                danger=True,
            )
        ):
            await self._api.delete_organisation(one)
            notify.done(f"{one.name} is deleted.")
            await self._reload()

    async def _rename(self, one: Organisation) -> None:
        async def submit(values: Values) -> None:
            await self._api.rename_organisation(one, values["name"])
            notify.done(f"{one.name} is now {values['name']}.")

        name = Field("name", "Name", value=one.name, required=True)
        if await ask_form(f"Rename {one.name}", [name], "Rename", submit):
            await self._reload()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await OrganisationsPage(context).build()


ORGANISATIONS = Page("/organisations", "Organisations", build, Right.USERS_READ, icon="o_apartment", group="Access")
