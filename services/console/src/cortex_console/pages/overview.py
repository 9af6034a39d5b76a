"""Home: is everything well, what runs, what happened last."""

import asyncio
from datetime import UTC, datetime

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.components.badge import engine_badge, stat, state_badge
from cortex_console.components.buttons import link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, card, code
from cortex_console.domain.formatting import ago_text, bytes_text, count_text, rate_text
from cortex_console.domain.identity import Right
from cortex_console.domain.models import COMING, RUNS, ModelSummary, count_by_state
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.ports import Batch

WINDOW_S = 300
REFRESH_S = 10.0
_LAST_EVENTS = 8


class OverviewPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._models_api = ModelsApi(context.api)

    async def build(self) -> None:
        """Draw it."""
        with page_header("Overview"):
            if self._context.may(Right.MODELS_WRITE):
                link_button("New model", "/models/new", icon="o_add", kind="primary")
        self._stats = box("c-stats")
        with box("c-columns"):
            with card("Models"):
                self._models = box("c-list")
            with card("Lately"):
                self._events = box("c-list")
        with card("Call it from your programs"):
            Text("p", "Any OpenAI client works with this base URL and an API key:", "c-p")
            code(f"{self._context.installation.gateway_url}/v1")
            with box("c-line"):
                link_button("API keys", "/keys", icon="o_key")
                link_button("Guide", "/guide", icon="o_menu_book")
        await self._read()
        self._context.on_events(self._on_events)
        ui.timer(REFRESH_S, self._read, immediate=False)

    async def _on_events(self, batch: Batch) -> None:
        await self._read()

    async def _read(self) -> None:
        api = self._context.api
        summary, throughput, models, events = await asyncio.gather(
            api.get("/system/summary"),
            api.get("/system/throughput", {"window_s": WINDOW_S}),
            self._models_api.list_all(),
            api.get("/events", {"limit": _LAST_EVENTS}),
        )
        self._show_stats(summary, throughput, models)
        self._show_models(models)
        self._show_events(rows(events.get("items")), {model.id: model.name for model in models})

    def _show_stats(self, summary: Row, throughput: Row, models: list[ModelSummary]) -> None:
        states = count_by_state(models)
        running = sum(states.get(state, 0) for state in RUNS)
        coming = sum(states.get(state, 0) for state in COMING)
        failed = states.get("failed", 0)
        total, load, resources = row(throughput.get("total")), row(summary.get("load")), row(summary.get("resources"))
        notes = [f"{coming} on the way"] * bool(coming) + [f"{failed} failed"] * bool(failed)
        self._stats.clear()
        with self._stats:
            stat("Models running", f"{running} of {len(models)}", ", ".join(notes) or "all as asked for")
            stat("Requests per second", rate_text(number(total.get("requests_per_second"))), "last 5 minutes")
            stat("Tokens per second", rate_text(number(total.get("tokens_per_second"))), "in and out, last 5 minutes")
            stat(
                "In flight",
                count_text(number(load.get("running"))),
                f"{whole(load.get('waiting'))} waiting, {whole(load.get('slots_total'))} slots",
            )
            _memory(resources)

    def _show_models(self, models: list[ModelSummary]) -> None:
        self._models.clear()
        with self._models:
            if not models:
                empty_state("o_smart_toy", "No models yet", "Make one of a file in the models folder.")
            for model in sorted(models, key=lambda one: (one.state == "stopped", one.name.lower()))[:_LAST_EVENTS]:
                with ui.link(target=f"/models/{model.id}").classes("c-list-row"):
                    Text("span", model.name, "c-strong c-grow c-clip")
                    engine_badge(model.engine)
                    state_badge(model.state)

    def _show_events(self, events: list[Row], names: dict[str, str]) -> None:
        now = datetime.now(UTC)
        self._events.clear()
        with self._events:
            if not events:
                Text("p", "Nothing has happened yet.", "c-hint")
            for event in events:
                data = row(event.get("data"))
                about = names.get(text(event.get("model_id")), "")
                detail = text(data.get("state")) or text(data.get("reason"))
                with box("c-list-row"):
                    Text("span", text(event.get("type")).removesuffix(".v1"), "c-mono c-nowrap")
                    Text("span", " · ".join(part for part in (about, detail) if part), "c-grow c-clip c-muted")
                    Text("span", ago_text(event.get("time"), now), "c-hint c-nowrap")


def _memory(resources: Row) -> None:
    gpus = whole(resources.get("gpus"))
    if gpus:
        free, total = number(resources.get("gpu_memory_free")), number(resources.get("gpu_memory_total"))
        stat("GPU memory free", bytes_text(free), f"of {bytes_text(total)} on {gpus} GPU{'s' * (gpus > 1)}")
        return
    free, total = number(resources.get("memory_available")), number(resources.get("memory_total"))
    hosts = whole(resources.get("hosts"))
    stat("Memory free", bytes_text(free), f"of {bytes_text(total)} on {hosts} host{'s' * (hosts != 1)}, no GPU")


async def build(context: PageContext) -> None:
    """Draw the page."""
    await OverviewPage(context).build()


OVERVIEW = Page("/", "Overview", build, Right.SYSTEM_READ, icon="o_space_dashboard", group="Serve")
