"""The list of keys, and what can be done with one."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cortex_console.adapters.keys_api import KeysApi, read_names
from cortex_console.components import table
from cortex_console.components.buttons import button, link_button
from cortex_console.components.filters import choice, search_field
from cortex_console.components.header import page_header
from cortex_console.components.page import PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box, code
from cortex_console.components.toggle import toggle
from cortex_console.domain.api_keys import STATES, USAGE_DAYS, ApiKey, Names, key_row
from cortex_console.domain.shapes import rows, text
from cortex_console.errors import ConsoleError
from cortex_console.pages.keys.acts import KeyActs
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

MINE, ALL = "mine", "all"
REFRESH_S = 30.0
_TWO = """<span class="c-two"><span>{{ props.row.%s }}</span>
<span v-if="props.row.%s_note" class="c-hint">{{ props.row.%s_note }}</span></span>"""


def _columns(everybody: bool) -> tuple[table.Column, ...]:
    owner = (table.Column("owner", "Belongs to", _TWO),) if everybody else ()
    return (
        table.Column("name", "Name", table.NAMED),
        table.Column("state", "State", table.BADGE),
        *owner,
        table.Column("access", "Opens", _TWO, wide=True),
        table.Column("expires", "Expires", sort_by="expires_sort"),
        table.Column("used", "Last used", table.TIME, sort_by="used_sort"),
        table.Column("tokens", f"Tokens, {USAGE_DAYS} d", align="right", sort_by="tokens_sort"),
    )


class KeysPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._known: dict[str, ApiKey] = {}
        self._names = Names({}, {})
        self._tokens: Mapping[str, int] = {}
        self._models: dict[str, str] = {}
        self._everybody = context.may(Right.KEYS_READ) and context.query.get("of", ALL) != MINE

    async def build(self) -> None:
        """Draw it."""
        everybody = self._everybody
        self._api = KeysApi(self._context.api, all_keys=everybody)
        self._names, self._tokens, self._models = await asyncio.gather(
            read_names(self._context.api, everybody=everybody), self._api.tokens(), self._model_names()
        )
        self._acts = KeyActs(self._context, self._api, self._names, self._models, everybody=everybody)
        with page_header("API keys", "What programs show to the gateway."):
            if self._context.may(Right.KEYS_READ):
                whose = toggle("Whose keys", {ALL: "All keys", MINE: "Mine"}, ALL if everybody else MINE)
                whose.on_value_change(lambda: ui.navigate.to(f"/keys?of={whose.value}"))
            button("New key", self._create, icon="o_add", kind="primary", why_not=self._why_not_create())
        self._make_filters()
        listed = table.Table("API keys", _columns(everybody), on_act=self._act, page_size=0)
        self._paging = Paging(listed, self._read, noun="key", count=self._count)
        self._none = box("")
        await self._changed()
        self._draw_address()
        self._context.on_events(self._on_events)
        ui.timer(REFRESH_S, self._refresh, immediate=False)

    async def _refresh(self) -> None:
        """What no event tells: when keys were used last, and for how much."""
        try:
            self._tokens = await self._api.tokens()
            await self._paging.reload()
        except ConsoleError as error:
            if error.is_signed_out:
                raise

    def _why_not_create(self) -> str | None:
        return self._context.why_not(Right.KEYS_WRITE) if self._everybody else None

    def _make_filters(self) -> None:
        with box("c-filters").props('role="search"'):
            self._search = search_field("Search keys", self._changed, placeholder="Name or beginning")
            self._state = choice("State", STATES, self._changed, value=self._context.query.get("state", "active"))
            self._user = self._org = None
            if self._everybody:
                query = self._context.query
                self._user = choice("User", self._names.users, self._changed, value=query.get("user", ""))
                self._org = choice("Organisation", self._names.organisations, self._changed, value=query.get("org", ""))
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')

    def _draw_address(self) -> None:
        with box("c-card"):
            Text("p", "Any OpenAI client works with this base URL and a key:", "c-p")
            code(f"{self._context.installation.gateway_url}/v1")
            with box("c-line"):
                link_button("Try it in the playground", "/playground", icon="o_forum")
                link_button("Guide", "/guide", icon="o_menu_book", kind="quiet")

    async def _model_names(self) -> dict[str, str]:
        answer = await self._context.api.get("/models")
        return {text(one.get("served_model_name")): text(one.get("name")) for one in rows(answer.get("items"))}

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("key."):
            await self._paging.reload()

    async def _changed(self) -> None:
        await self._paging.first()

    async def _read(self, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        query = {
            "q": (self._search.value or "").strip() or None,
            "state": self._state.value or None,
            "user": self._user.value or None if self._user else None,
            "org": self._org.value or None if self._org else None,
        }
        found, following = await self._api.page(query, after)
        self._known |= {key.id: key for key in found}
        now = datetime.now(UTC)
        return [self._row(key, now) for key in found], following

    def _row(self, key: ApiKey, now: datetime) -> dict[str, object]:
        return key_row(key, self._names, self._tokens, now) | {"actions": self._acts.offered(key)}

    async def _create(self) -> None:
        if await self._acts.create():
            await self._paging.reload()

    async def _act(self, key_id: str, act: str) -> None:
        key = self._known.get(key_id)
        if key is None:
            return
        acts: dict[str, Callable[[ApiKey], Coroutine[Any, Any, bool]]] = {
            "edit": self._acts.edit,
            "rotate": self._acts.rotate,
            "disable": self._acts.disable,
            "enable": self._acts.enable,
            "revoke": self._acts.revoke,
            "usage": self._acts.show_usage,
        }
        if await acts[act](key):
            await self._paging.reload()
