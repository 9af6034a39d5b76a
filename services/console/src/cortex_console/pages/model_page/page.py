"""The frame of a model's page: its head, what is wrong with it, and its parts, each drawn when it is looked at."""

from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components.badge import engine_badge, state_badge
from cortex_console.components.buttons import button, icon_button
from cortex_console.components.header import page_header
from cortex_console.components.model_acts import perform
from cortex_console.components.moments import ago, meter
from cortex_console.components.page import PageContext
from cortex_console.components.redraw import Redraw
from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.model_acts import ModelAct, Offer, offers
from cortex_console.domain.model_detail import EngineLoad, ModelDetail, progress
from cortex_console.domain.shapes import row
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_page.events import EventsPart
from cortex_console.pages.model_page.logs import LogsPart
from cortex_console.pages.model_page.metrics import MetricsPart
from cortex_console.pages.model_page.repair import show_repair
from cortex_console.pages.model_page.requests import RequestsPart
from cortex_console.pages.model_page.shared import ModelView, Sample
from cortex_console.pages.model_page.state import StatePart
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

SAMPLE_S = 3.0
SAMPLES = 300
_ABOUT = ("model.", "container.", "upstream.", "placement.")


class Part(Protocol):
    """What is shown below one tab."""

    async def build(self) -> None: ...
    async def refresh(self) -> None:
        """The model was read anew."""
        ...

    async def on_batch(self, batch: Batch) -> None: ...
    def leave(self) -> None:
        """Another tab is looked at."""
        ...


class ModelPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = WatchingApi(context.api)
        self._part: Part | None = None
        self._makers = self._parts()

    def _parts(self) -> dict[str, tuple[str, Callable[[ModelView], Part]]]:
        may = self._context.may
        parts: dict[str, tuple[str, Callable[[ModelView], Part]]] = {"state": ("State", StatePart)}
        if may(Right.LOGS_READ):
            parts["logs"] = ("Logs", LogsPart)
        if may(Right.USAGE_READ):
            parts |= {"metrics": ("Metrics", MetricsPart), "requests": ("Requests", RequestsPart)}
        if may(Right.EVENTS_READ):
            parts["events"] = ("Events", EventsPart)
        return parts

    async def build(self) -> None:
        """Draw it."""
        detail = await self._api.model(self._context.parameters["reference"])
        self._view = ModelView(self._context, self._api, detail, deque(maxlen=SAMPLES), self.read)
        self._actions = page_header(detail.summary.name, back=("/models", "Models"))
        self._head = box("c-model-head")
        self._progress = box("c-stack")
        self._banner = Redraw(box("c-stack"))
        self._tabs = ui.tabs().props('no-caps dense align="left" inline-label outside-arrows mobile-arrows')
        with labelled(self._tabs.classes("c-tabs"), "Parts of the page"):
            for name, (label, _) in self._makers.items():
                ui.tab(name, label)
        self._panel = box("c-stack c-panel").props('role="tabpanel"')
        self._show()
        wanted = self._context.query.get("tab", "state")
        self._tabs.set_value(wanted if wanted in self._makers else "state")
        self._tabs.on_value_change(self._on_tab)
        await self._open(str(self._tabs.value))
        self._context.on_events(self._on_events)
        ui.timer(SAMPLE_S, self._sample, immediate=False)

    async def read(self) -> None:
        """Read the model anew, and show it. A model that was deleted leads back to the list."""
        try:
            self._view.detail = await self._api.model(self._view.detail.summary.id)
        except ConsoleError as error:
            if error.code != "model_not_found":
                raise
            ui.navigate.to("/models")
            return
        self._view.samples.append(Sample(datetime.now(UTC), self._view.detail.load()))
        self._show()
        if self._part is not None:
            await self._part.refresh()

    async def _sample(self) -> None:
        try:
            await self.read()
        except ConsoleError:
            self._view.samples.append(Sample(datetime.now(UTC), EngineLoad()))  # a gap; the feed says that it is away

    async def _on_events(self, batch: Batch) -> None:
        model_id = self._view.detail.summary.id
        mine = any(row(event.data.get("data")).get("model_id") == model_id for event in batch.events)
        if not mine and not batch.resync:
            return
        if batch.has(*_ABOUT):
            await self.read()
        if self._part is not None:
            await self._part.on_batch(batch)

    async def _on_tab(self) -> None:
        name = str(self._tabs.value)
        ui.navigate.history.replace(f"/models/{self._view.detail.summary.id}?tab={name}")
        await self._open(name)

    async def _open(self, name: str) -> None:
        if self._part is not None:
            self._part.leave()
        self._part = self._makers[name][1](self._view)
        self._panel.clear()
        labelled(self._panel, self._makers[name][0])
        with self._panel:
            await self._part.build()

    def _show(self) -> None:
        detail = self._view.detail
        model = detail.summary
        self._view.trouble = detail.trouble(self._view.trouble)
        key = (model.state, model.reason, model.version, model.healthy, detail.since)
        if key != self._view.shown:
            self._view.shown = key
            self._show_actions(offers(model, self._context.me))
        self._head.clear()
        with self._head:
            state_badge(model.state)
            engine_badge(model.engine)
            if model.reason and model.reason != model.state and self._view.trouble is None:
                Text("span", model.reason, "c-model-reason")
            if detail.since:
                ago(detail.since)
        self._show_banner(detail)

    def _show_banner(self, detail: ModelDetail) -> None:
        now = datetime.now(UTC)
        coming = [(replica, progress(replica, now)) for replica in detail.replicas]
        self._progress.clear()
        with self._progress:
            for replica, how in coming:
                if how is not None:
                    with box("c-card c-progress"):
                        Text("span", f"Replica {replica.ordinal}: {how.words}", "c-strong")
                        meter(f"Replica {replica.ordinal}", how.share)
        trouble = self._view.trouble
        if self._banner.due((trouble, detail.summary.version)):
            with self._banner.fresh():
                if trouble is not None:
                    show_repair(self._view, trouble)

    def _show_actions(self, offered: list[Offer]) -> None:
        beside = {ModelAct.TEST, ModelAct.RESTART, ModelAct.EDIT}
        self._actions.clear()
        with self._actions:
            for offer in offered:
                if offer.first or offer.act in beside:
                    kind = "primary" if offer.act is ModelAct.START and self._view.trouble is None else "plain"
                    button(offer.label, self._doing(offer.act), icon=offer.icon, kind=kind, why_not=offer.why_not)
            rest = [offer for offer in offered if not offer.first and offer.act not in beside]
            if rest:
                self._show_menu(rest)

    def _show_menu(self, rest: list[Offer]) -> None:
        more = icon_button("o_more_horiz", "More", lambda: None).props('aria-haspopup="menu"')
        with more, ui.menu().props('anchor="bottom right" self="top right"').classes("c-menu"):
            for offer in rest:
                item = ui.menu_item(offer.label, self._doing(offer.act))
                if offer.danger:
                    item.classes("c-bad-text")
                if offer.why_not is not None:
                    item.props("disable")
                    with item:
                        ui.tooltip(offer.why_not)

    def _doing(self, act: ModelAct) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            await perform(act, self._view.detail.summary, ModelsApi(self._context.api), self.read)

        return do
