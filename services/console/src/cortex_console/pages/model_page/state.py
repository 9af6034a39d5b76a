"""How the model is, since when, why, on which engines."""

from datetime import UTC, datetime, timedelta

from nicegui import ui

from cortex_console.components import table
from cortex_console.components.badge import stat
from cortex_console.components.empty import empty_state
from cortex_console.components.moments import ago
from cortex_console.components.redraw import Redraw
from cortex_console.components.text import Text, box, card, facts
from cortex_console.components.timeline_bar import timeline_bar
from cortex_console.domain.formatting import NOTHING, count_text, duration_text, rate_text
from cortex_console.domain.model_detail import percent_text, replica_row
from cortex_console.domain.shapes import number, row
from cortex_console.domain.timeline import Turn, state_turns
from cortex_console.domain.why_tree import Why, WhyStep
from cortex_console.pages.model_page.shared import ModelView
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

DAY = timedelta(hours=24)
WINDOW_S = 300
_COLUMNS = (
    table.Column("ordinal", ""),
    table.Column("state", "State", table.BADGE_NOTE, wide=True),
    table.Column("verdict", "Health", table.BADGE_NOTE, wide=True),
    table.Column("where", "Where"),
    table.Column("endpoint", "Address"),
    table.Column("load", "Load"),
    table.Column("kv", "KV cache", align="right"),
    table.Column("restarts", "Restarts", align="right"),
)


class StatePart:
    """Below the tab State."""

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self._why: Why | None = None
        self._turns: list[Turn] = []

    async def build(self) -> None:
        """Draw it."""
        self._stats = box("c-stats")
        with card("Last 24 hours"):
            self._timeline = box("c-stack")
        with card("Replicas"):
            self._replicas = table.Table("Replicas", _COLUMNS)
            self._warnings = box("c-stack")
        with box("c-columns c-columns-wide"):
            with card("Why"):
                self._why_box = Redraw(box("c-stack c-why-box").props('tabindex="0" role="region" aria-label="Why"'))
            with card("Settings"):
                facts(self._view.detail.settings()).classes("c-facts-grid")
        await self._read_past()
        await self.refresh()

    async def refresh(self) -> None:
        """The model was read anew."""
        detail, view = self._view.detail, self._view
        self._replicas.show([replica_row(replica) for replica in detail.replicas])
        self._show_warnings()
        sums: dict[str, float | None] = {}
        if view.context.may(Right.USAGE_READ):
            answer = await view.api.throughput(WINDOW_S)
            mine = row(row(answer.get("models")).get(detail.summary.served_name))
            sums = {name: number(value) for name, value in mine.items()}
        load = detail.load()
        self._stats.clear()
        with self._stats:
            stat("Requests per second", rate_text(sums.get("requests_per_second")), "last 5 min")
            stat("Tokens per second", rate_text(sums.get("tokens_per_second")), "in and out, last 5 min")
            stat("First token", _ms(sums.get("ttft_ms_p50")), "median, last 5 min")
            waiting = f"{load.waiting:.0f} waiting" if load.waiting is not None else "not told"
            stat("In flight", _of(load.running, load.slots), waiting)
            context = f"{count_text(load.context_per_slot)} tokens a slot" if load.context_per_slot else "not told"
            stat("KV cache", percent_text(load.kv_usage), context)

    async def on_batch(self, batch: Batch) -> None:
        """Something happened to the model."""
        await self._read_past()

    def leave(self) -> None:
        """Nothing runs."""

    async def _read_past(self) -> None:
        view = self._view
        if view.context.may(Right.EVENTS_READ):
            query = {"model": view.detail.summary.id, "type": "model.state_changed", "limit": 300}
            self._turns = state_turns(await view.api.raw_events(query))
        self._why = await view.api.why(view.detail.summary.id)
        self._show_timeline()
        self._show_why()

    def _show_timeline(self) -> None:
        now = datetime.now(UTC)
        self._timeline.clear()
        with self._timeline:
            if not self._turns:
                Text("p", "Its state has not changed yet.", "c-hint")
                return
            begin = max(now - DAY, self._turns[0].at)
            timeline_bar("States", self._turns, begin, now)
            with box("c-list"):
                for turn in list(reversed(self._turns))[:5]:
                    with box("c-list-row"):
                        Text("span", turn.state, f"c-badge c-dot c-{turn.tone.value}")
                        Text("span", turn.reason if turn.reason != turn.state else "", "c-grow c-muted c-clip")
                        ago(turn.at.isoformat())

    def _show_why(self) -> None:
        why = self._why
        if not self._why_box.due(why):
            return
        with self._why_box.fresh():
            if why is None or why.root is None:
                empty_state("o_help", "Nothing is known", "What happened to it has left the log.")
                return
            Text("p", why.headline, "c-p c-strong")
            if why.next_step:
                Text("p", why.next_step, "c-p c-muted")
            with box("c-why", "ul"):
                _step(why.root)
            if why.omitted:
                Text("p", f"{why.omitted} events in between are left out.", "c-hint")
            for later in why.later:
                Text("p", f"Later: {later.sentence}", "c-hint")

    def _show_warnings(self) -> None:
        told = [warning for replica in self._view.detail.replicas for warning in replica.warnings]
        self._warnings.clear()
        with self._warnings:
            for warning in dict.fromkeys(told):
                with box("c-notice c-notice-warn"):
                    ui.icon("o_warning_amber").props('aria-hidden="true"')
                    Text("span", warning)


def _step(step: WhyStep) -> None:
    with box("c-why-step", "li"):
        with box("c-why-line"):
            ui.icon(step.icon).classes(f"c-why-icon c-text-{step.tone.value}").props('aria-hidden="true"')
            Text("span", step.sentence, "c-grow c-why-words").props["title"] = step.sentence
            if step.after:
                Text("span", step.after, "c-hint c-nowrap")
            else:
                ago(step.at)
        if step.facts or step.log_tail:
            with ui.element("details").classes("c-why-more"):
                Text("summary", "Details", "c-hint")
                facts(dict(step.facts))
                if step.log_tail:
                    Text("pre", "\n".join(step.log_tail), "c-pre").props('tabindex="0"')
        if step.children:
            with box("c-why", "ul"):
                for child in step.children:
                    _step(child)


def _ms(value: float | None) -> str:
    return NOTHING if value is None else duration_text(value / 1000)


def _of(part: float | None, whole: float | None) -> str:
    if part is None:
        return NOTHING
    return f"{part:.0f} of {whole:.0f}" if whole is not None else f"{part:.0f}"
