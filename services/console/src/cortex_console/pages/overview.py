"""Home: is everything well, what runs, what failed and why, what happened last, what to do next."""

import asyncio
from dataclasses import dataclass

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components.badge import engine_badge, stat, state_badge
from cortex_console.components.buttons import link_button
from cortex_console.components.chart import FAILED, Chart, line_chart
from cortex_console.components.empty import empty_state
from cortex_console.components.header import page_header
from cortex_console.components.moments import ago
from cortex_console.components.page import Page, PageContext
from cortex_console.components.redraw import Redraw
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box, card, code
from cortex_console.domain.attention import FirstStep, Notice, first_steps, notices
from cortex_console.domain.event_words import Happening
from cortex_console.domain.formatting import bytes_text, count_text, rate_text
from cortex_console.domain.models import COMING, RUNS, Load, ModelSummary, count_by_state, loads
from cortex_console.domain.rates import Rates, rates
from cortex_console.domain.shapes import Row, number, row, whole
from cortex_console.domain.states import Tone
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

WINDOW_S = 300
REFRESH_S = 10.0
_LAST_EVENTS = 9
_MODELS = 8
_ICONS = {Tone.BAD: "o_error_outline", Tone.WARN: "o_warning_amber", Tone.GOOD: "o_check_circle"}


@dataclass(frozen=True, slots=True)
class _Present:
    """Everything the page shows."""

    summary: Row
    throughput: Row
    models: list[ModelSummary]
    happenings: tuple[Happening, ...]
    rates: Rates


class OverviewPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._models_api = ModelsApi(context.api)
        self._api = WatchingApi(context.api)
        self._rates = rates({}, "minute")
        self._charts: list[Chart] = []

    async def build(self) -> None:
        """Draw it."""
        context = self._context
        with page_header("Overview"):
            if context.may(Right.MODELS_WRITE):
                link_button("New model", "/models/new", icon="o_add", kind="primary")
        self._attention = Redraw(box("c-attention"))
        self._steps = Redraw(box(""))
        self._stats = box("c-stats")
        with box("c-columns"):
            with card():
                self._charts.append(line_chart(context, "Requests", "per second", self._requests))
            with card():
                self._charts.append(line_chart(context, "Tokens", "per second", self._tokens))
        with box("c-columns"):
            with card("Models"):
                self._models = Redraw(box("c-list"))
            with card("Lately"):
                self._events = box("c-list c-lately")
                ui.link("All events", "/events").classes("c-nowrap")
        self._show_address()
        await self._read()
        context.on_events(self._on_events)
        ui.timer(REFRESH_S, self._read, immediate=False)

    async def _on_events(self, batch: Batch) -> None:
        await self._read()

    async def _read(self) -> None:
        present = await self._ask()
        self._rates = present.rates
        for chart in self._charts:
            chart.update()
        hosts = whole(row(present.summary.get("resources")).get("hosts"))
        unhealthy = whole(row(present.summary.get("upstreams")).get("unhealthy"))
        self._show_attention(notices(present.models, hosts, unhealthy))
        self._show_steps(first_steps(present.models, asked=not present.rates.is_empty))
        self._show_stats(present)
        self._show_models(present.models, loads(present.throughput))
        self._show_events(present.happenings, {model.id: model.name for model in present.models})

    async def _ask(self) -> _Present:
        api = self._context.api
        summary, throughput, models, page, series = await asyncio.gather(
            api.get("/system/summary"),
            self._api.throughput(WINDOW_S),
            self._models_api.list_all(),
            self._api.happenings({"limit": _LAST_EVENTS}),
            self._api.series({"hours": 1, "bucket": "minute"}),
        )
        return _Present(summary, throughput, models, page.items, rates(series, "minute"))

    def _requests(self) -> dict[str, list[list[object]]]:
        return {"all": self._rates.requests, FAILED: self._rates.failed}

    def _tokens(self) -> dict[str, list[list[object]]]:
        return {"in": self._rates.prompt_tokens, "out": self._rates.completion_tokens}

    def _show_attention(self, found: list[Notice]) -> None:
        if not self._attention.due(found):
            return
        with self._attention.fresh():
            for notice in found:
                with box(f"c-notice c-notice-{notice.tone.value}"):
                    ui.icon(_ICONS[notice.tone]).props('aria-hidden="true"')
                    Text("span", notice.words, "c-notice-text c-clamp")
                    ui.link(notice.link_words, notice.link).classes("c-nowrap")

    def _show_steps(self, steps: list[FirstStep]) -> None:
        if not self._steps.due(steps):
            return
        if not steps:
            self._steps.element.clear()
            return
        with self._steps.fresh(), card("First steps"):
            for step in steps:
                with box("c-step"):
                    icon = "o_check_circle" if step.done else "o_radio_button_unchecked"
                    ui.icon(icon).classes("c-text-good" if step.done else "c-muted").props('aria-hidden="true"')
                    with box("c-step-text"):
                        Text("div", step.title + (", done" if step.done else ""), "c-strong")
                        Text("div", step.text, "c-hint")
                    if not step.done:
                        link_button(step.link_words, step.link)

    def _show_stats(self, present: _Present) -> None:
        states = count_by_state(present.models)
        running = sum(states.get(state, 0) for state in RUNS)
        coming = sum(states.get(state, 0) for state in COMING)
        failed = states.get("failed", 0)
        total, load = row(present.throughput.get("total")), row(present.summary.get("load"))
        told = [f"{coming} on the way"] * bool(coming) + [f"{failed} failed"] * bool(failed)
        self._stats.clear()
        with self._stats:
            stat("Models running", f"{running} of {len(present.models)}", ", ".join(told) or "all as asked for")
            stat("Requests per second", rate_text(number(total.get("requests_per_second"))), "last 5 min")
            stat("Tokens per second", rate_text(number(total.get("tokens_per_second"))), "in and out, last 5 min")
            stat(
                "In flight",
                count_text(number(load.get("running"))),
                f"{whole(load.get('waiting'))} waiting, {whole(load.get('slots_total'))} slots",
            )
            _memory(row(present.summary.get("resources")))

    def _show_models(self, models: list[ModelSummary], rate: dict[str, Load]) -> None:
        if not self._models.due((models, rate)):
            return
        with self._models.fresh():
            if not models:
                empty_state("o_smart_toy", "No models yet", "Make one of a file in the models folder.")
            for model in sorted(models, key=_by_interest)[:_MODELS]:
                load = rate.get(model.served_name)
                with ui.link(target=f"/models/{model.id}").classes("c-list-row"):
                    Text("span", model.name, "c-strong c-grow c-clip")
                    if load is not None:
                        Text("span", f"{rate_text(load.tokens_per_second)} tok/s", "c-hint c-nowrap")
                    engine_badge(model.engine)
                    state_badge(model.state)
            if len(models) > _MODELS:
                ui.link(f"All {len(models)} models", "/models").classes("c-list-row")

    def _show_events(self, happenings: tuple[Happening, ...], names: dict[str, str]) -> None:
        self._events.clear()
        with self._events:
            if not happenings:
                Text("p", "Nothing has happened yet.", "c-hint")
            for one in happenings:
                with box("c-list-row"):
                    Text("span", one.topic, f"c-badge c-dot c-{one.tone.value}")
                    about = " · ".join(part for part in (names.get(one.model_id, ""), one.words) if part)
                    Text("span", about, "c-grow c-clip c-muted").props["title"] = about
                    ago(one.at)

    def _show_address(self) -> None:
        address = f"{self._context.installation.gateway_url}/v1"
        with card("Call it from your programs"):
            Text("p", "Any OpenAI client works with this base URL and an API key:", "c-p")
            with box("c-line"):
                code(address)
                copy_button(address)
            with box("c-line"):
                link_button("API keys", "/keys", icon="o_key")
                link_button("Playground", "/playground", icon="o_forum")
                link_button("Guide", "/guide", icon="o_menu_book")


def _by_interest(model: ModelSummary) -> tuple[int, str]:
    order = {"failed": 0, "degraded": 1, "stopped": 3}
    return order.get(model.state, 2), model.name.lower()


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
