"""Upstreams: models that others run and Cortex routes to."""

from collections.abc import Sequence

from cortex_console.adapters.settings_api import UpstreamsApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import box
from cortex_console.domain.external_upstreams import specification, upstream_row, urls_text
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.domain.states import ENGINES, TASKS
from cortex_console.pages.settings_sections import SETTINGS_PATH, settings_header
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_ENDPOINTS = """<span class="c-endpoints"><span v-for="one in props.row.endpoints" :key="one.url">
<code class="c-code">{{ one.url }}</code> <span :class="'c-badge c-dot c-' + one.tone" :title="one.note">{{ one.verdict }}</span></span></span>"""
_COLUMNS = (
    table.Column("name", "Name, served as", table.TWO_LINES, wide=True),
    table.Column("engine", "Engine", table.TAG),
    table.Column("task", "Task"),
    table.Column("state", "State", table.BADGE_NOTE, wide=True),
    table.Column("endpoints", "Endpoints", _ENDPOINTS, sort_by="-", wide=True),
)
_KEEP = "Sent as bearer token, kept sealed, never shown."


class UpstreamsPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = UpstreamsApi(context.api)
        self._known: dict[str, Row] = {}

    async def build(self) -> None:
        """Draw it."""
        lead = "Models that others run: Cortex routes requests to them, meters them and watches their health."
        with settings_header(self._context, "Upstreams", lead):
            why_not = self._context.why_not(Right.UPSTREAMS_WRITE)
            button("New upstream", self._create, icon="o_add", kind="primary", why_not=why_not)
        self._empty = box("")
        self._table = table.Table("Upstreams", _COLUMNS, on_act=self._act)
        await self._read()
        self._context.on_events(self._on_events)

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("model.", "upstream."):
            await self._read()

    async def _read(self) -> None:
        found = await self._api.list_all()
        self._known = {text(one.get("id")): one for one in found}
        self._table.show([upstream_row(one) | {"actions": self._acts(one)} for one in found])
        self._table.element.visible = bool(found)
        self._empty.clear()
        if not found:
            with self._empty:
                empty_state(
                    "o_hub",
                    "No upstreams yet",
                    "Give Cortex the address of a vLLM or llama-server that runs elsewhere, and its models get keys, limits and usage.",
                )

    def _acts(self, one: Row) -> Sequence[dict[str, object]]:
        why_not = self._context.why_not(Right.UPSTREAMS_WRITE)
        probe = self._context.why_not(Right.MODELS_OPERATE)
        toggle = ("disable", "Switch off", "o_pause") if one.get("enabled") else ("enable", "Switch on", "o_play_arrow")
        return [
            table.Act("edit", "Edit", "o_edit", why_not, first=True).cell(),
            table.Act("probe", "Probe now", "o_network_check", probe).cell(),
            table.Act(*toggle, why_not).cell(),
            table.Act("delete", "Forget", "o_delete", why_not, danger=True).cell(),
        ]

    async def _act(self, key: str, act: str) -> None:
        one = self._known.get(key)
        if one is None:
            return
        name = text(one.get("name"))
        if act == "edit":
            await self._edit(one)
        elif act == "probe":
            await self._api.probe(key)
            notify.tell(f"{name} is being probed.")
        elif act == "delete":
            told = (
                "Requests for it are refused from now on.",
                "What runs there goes on.",
                "Usage that was recorded stays.",
            )
            if await confirm(Question(f"Forget {name}?", told, "Forget", danger=True)):
                await self._api.delete(key)
                notify.done(f"{name} is forgotten.")
                await self._read()
        else:
            await self._api.update(one, {"enabled": act == "enable"})
            notify.done(f"{name} is {'on' if act == 'enable' else 'off'}.")
            await self._read()

    async def _create(self) -> None:
        async def submit(values: Values) -> None:
            await self._api.create(specification(values))
            notify.done(f"{values['served_model_name']} is registered and being probed.")

        if await ask_form("New upstream", _fields({}), "Register", submit):
            await self._read()

    async def _edit(self, one: Row) -> None:
        async def submit(values: Values) -> None:
            await self._api.update(one, specification(values))
            notify.done(f"{values['served_model_name']} is changed.")

        if await ask_form(f"Edit {text(one.get('name'))}", _fields(one), "Save", submit):
            await self._read()


def _fields(one: Row) -> list[Field]:
    endpoints = rows(one.get("endpoints"))
    theirs = text(endpoints[0].get("served_name")) if endpoints else ""
    has_key = any(endpoint.get("has_api_key") for endpoint in endpoints)
    key_hint = f"{_KEEP} Empty: each endpoint keeps the one it has." if has_key else _KEEP
    return [
        Field("served_model_name", "Served name", value=text(one.get("served_model_name")), required=True,
              hint="What clients ask for"),
        Field("endpoints", "Endpoints", "long", urls_text(one), "One base URL a line, like http://10.0.0.5:8000", required=True),
        Field("engine_type", "Engine", "choice", text(one.get("engine_type"), "vllm"), options=ENGINES),
        Field("task", "Task", "choice", text(one.get("task"), "generate"), options=TASKS),
        Field("name", "Name", value=text(one.get("name")), hint="What people call it; the served name unless given"),
        Field("served_name", "Name at the endpoint", value=theirs, hint="Only when it is another one there"),
        Field("api_key", "API key of the endpoint", "secret", hint=key_hint),
        Field("enabled", "Route requests to it", "switch", bool(one.get("enabled", True))),
    ]  # fmt: skip


async def build(context: PageContext) -> None:
    """Draw the page."""
    await UpstreamsPage(context).build()


UPSTREAMS = Page(f"{SETTINGS_PATH}/upstreams", "Upstreams", build, Right.MODELS_READ, belongs_to=SETTINGS_PATH)
