"""All models: what they are, how they are, what they do, and what can be done with them."""

import asyncio
from collections.abc import Callable, Mapping

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.components import table
from cortex_console.components.buttons import link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.model_acts import perform
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.model_acts import ModelAct, offers
from cortex_console.domain.models import Load, ModelFilter, ModelSummary, table_row
from cortex_console.domain.states import ENGINES, TASKS
from cortex_console.errors import ConsoleError
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

LOADS_EVERY_S = 5.0
_STATES = ("running", "degraded", "loading", "starting", "pulling", "stopping", "stopped", "failed", "archived")
_COLUMNS = (
    table.Column("name", "Name, served as", table.TWO_LINES, wide=True),
    table.Column("engine", "Engine", table.TAG),
    table.Column("task", "Task"),
    table.Column("state", "State", table.BADGE_NOTE, wide=True),
    table.Column("replicas", "Replicas", align="right", sort_by="replicas_sort"),
    table.Column("gpus", "GPUs"),
    table.Column("requests", "Req/s", align="right", sort_by="requests_sort"),
    table.Column("tokens", "Tok/s", align="right", sort_by="tokens_sort"),
)


class ModelsPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = ModelsApi(context.api)
        self._models: list[ModelSummary] = []
        self._loads: Mapping[str, Load] = {}
        self._archived = False

    async def build(self) -> None:
        """Draw it."""
        with page_header("Models", "What this installation serves."):
            if self._context.may(Right.MODELS_WRITE):
                link_button("New model", "/models/new", icon="o_add", kind="primary")
        self._filters = box("c-filters").props('role="search"')
        with self._filters:
            self._make_filters()
        self._empty = box("")
        self._table = table.Table("Models", _COLUMNS, on_act=self._act)
        await self._read()
        self._context.on_events(self._on_events)
        if self._context.may(Right.USAGE_READ):
            ui.timer(LOADS_EVERY_S, self._read_loads, immediate=False)

    def _make_filters(self) -> None:
        self._search = ui.input(placeholder="Search").props('outlined dense clearable type="search" debounce="200"')
        labelled(self._search.classes("c-search"), "Search models")
        self._engine = _choice("Engine", ENGINES, self._show)
        self._task = _choice("Task", TASKS, self._show)
        self._state = _choice("State", {state: state.capitalize() for state in _STATES}, self._show)
        ui.switch("Archived", on_change=self._toggle_archived).classes("c-switch")
        box("c-spring")
        self._count = Text("span", "", "c-hint").props('role="status"')
        self._search.on_value_change(self._show)

    async def _toggle_archived(self) -> None:
        self._archived = not self._archived
        await self._read()

    async def _read(self) -> None:
        reading = self._api.list_all(archived=self._archived)
        if self._context.may(Right.USAGE_READ):
            self._models, self._loads = await asyncio.gather(reading, self._loads_or_none())
        else:
            self._models = await reading
        self._show()

    async def _read_loads(self) -> None:
        self._loads = await self._loads_or_none()
        self._show()

    async def _loads_or_none(self) -> Mapping[str, Load]:
        try:
            return await self._api.loads()
        except ConsoleError:
            return self._loads  # rates are a nicety: the table lives without them

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("model.", "container.", "upstream."):
            await self._read()

    def _show(self) -> None:
        wanted = ModelFilter(
            self._search.value or "", self._engine.value or "", self._task.value or "", self._state.value or ""
        )
        shown = [model for model in self._models if model.matches(wanted)]
        self._table.show([self._row(model) for model in shown])
        everything = len(self._models)
        word = "model" if everything == 1 else "models"
        self._count.text = (
            f"{everything} {word}" if len(shown) == everything else f"{len(shown)} of {everything} {word}"
        )
        self._table.element.visible = self._filters.visible = bool(everything) or self._archived
        self._empty.clear()
        if not everything:
            with self._empty:
                self._show_empty()

    def _row(self, model: ModelSummary) -> dict[str, object]:
        acts = [
            table.Act(offer.act.value, offer.label, offer.icon, offer.why_not, offer.first, offer.danger).cell()
            for offer in offers(model, self._context.me)
        ]
        return table_row(model, self._loads.get(model.served_name)) | {"actions": acts}

    def _show_empty(self) -> None:
        if not self._context.may(Right.MODELS_WRITE):
            empty_state("o_smart_toy", "No models yet", "An administrator has to make the first one.")
            return
        empty_state(
            "o_smart_toy",
            "No models yet",
            "Put a GGUF file or a folder of weights into the models folder, then make a model of it.",
            lambda: link_button("New model", "/models/new", icon="o_add", kind="primary"),
        )

    async def _act(self, key: str, act: str) -> None:
        model = next((model for model in self._models if model.id == key), None)
        if model is not None:
            await perform(ModelAct(act), model, self._api, self._read)


def _choice(label: str, names: Mapping[str, str], on_change: Callable[[], None]) -> ui.select:
    options = {"": f"{label}: all"} | dict(names)
    made = ui.select(options, value="", on_change=on_change).props("outlined dense options-dense")
    labelled(made.classes("c-select"), label)
    return made


async def build(context: PageContext) -> None:
    """Draw the page."""
    await ModelsPage(context).build()


MODELS = Page("/models", "Models", build, Right.MODELS_READ, icon="o_smart_toy", group="Serve")
