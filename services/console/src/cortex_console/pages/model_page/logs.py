"""What the engine says, as it says it."""

import asyncio
import contextlib
from collections.abc import Sequence

from nicegui import background_tasks, ui

from cortex_console.components.buttons import button, icon_button
from cortex_console.components.empty import empty_state
from cortex_console.components.filters import search_field
from cortex_console.components.log_view import LogView
from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.advice import next_step
from cortex_console.domain.log_lines import Severity, marked
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_page.shared import ModelView
from cortex_console.ports import Batch

TAIL = 1000
AGAIN_S = 3.0
_LEVELS: dict[str, tuple[Severity, ...] | None] = {
    "": None,
    "info": (Severity.INFO, Severity.WARNING, Severity.ERROR),
    "warning": (Severity.WARNING, Severity.ERROR),
    "error": (Severity.ERROR,),
}


class LogsPart:
    """Below the tab Logs."""

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self._ordinal = 0
        self._task: asyncio.Task[None] | None = None
        self._before = Severity.INFO
        self._got = 0

    async def build(self) -> None:
        """Draw it, and begin to follow."""
        detail = self._view.detail
        if detail.summary.external:
            empty_state("o_article", "Others run it", "Its log is where the engine runs.")
            return
        with box("c-filters"):
            self._make_controls()
        self._log = LogView(f"Log of {detail.summary.name}", self._on_following)
        self._copy.on("click", js_handler=self._log.copy_handler())
        self._status = Text("p", "Waiting for the first line…", "c-hint").props('role="status"')
        ui.context.client.on_delete(self.leave)
        self._begin()

    async def refresh(self) -> None:
        """Nothing: the stream tells."""

    async def on_batch(self, batch: Batch) -> None:
        """An engine that came back is followed anew."""
        if self._task is not None and self._task.done() and batch.has("container.started", "container.failed"):
            self._begin()

    def leave(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _make_controls(self) -> None:
        self._search = search_field("Search the log", self._filter)
        names = {"": "All lines", "info": "Info and worse", "warning": "Warnings and errors", "error": "Errors"}
        self._level = ui.select(names, value="", on_change=self._filter).props("outlined dense options-dense")
        labelled(self._level.classes("c-select"), "Severity")
        ordinals = {replica.ordinal: f"Replica {replica.ordinal}" for replica in self._view.detail.replicas}
        if len(ordinals) > 1:
            chosen = ui.select(ordinals, value=0, on_change=lambda event: self._choose(int(event.value)))
            labelled(chosen.props("outlined dense options-dense").classes("c-select"), "Replica")
        ui.switch("Wrap", value=True, on_change=lambda event: self._log.set_wrap(bool(event.value))).classes("c-switch")
        self._follow = ui.switch("Follow", value=True, on_change=lambda event: self._log.follow(bool(event.value)))
        self._follow.classes("c-switch")
        box("c-spring")
        self._copy = button("Copy", lambda: None, icon="o_content_copy")
        button("Download", self._download, icon="o_download")
        icon_button("o_refresh", "Read anew", self._begin)

    def _begin(self) -> None:
        self.leave()
        self._forget()
        self._task = background_tasks.create(self._follow_log(), name="log of a model")

    def _choose(self, ordinal: int) -> None:
        self._ordinal = ordinal
        self._begin()

    async def _follow_log(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while await self._follow_once():
                await asyncio.sleep(AGAIN_S)
                self._forget()

    async def _follow_once(self) -> bool:
        """Until it ends; true when it was cut off and is worth another try."""
        try:
            async for part in self._view.api.follow_log(self._view.detail.summary.id, self._ordinal, TAIL):
                self._push(part.lines)
                if part.skipped:
                    self._push((f"… {part.skipped} lines were left out: they came too fast.",))
                if part.ended:
                    self._status.text = f"{self._got} lines. The log ended: {part.ended}."
                    return False
        except ConsoleError as error:
            self._status.text = f"{error.message} {error.code} · {next_step(error.code, error.status)}"
            return error.status == 0
        return True

    def _forget(self) -> None:
        self._log.empty()
        self._before, self._got = Severity.INFO, 0

    def _push(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        made = marked(lines, self._before)
        self._before = made[-1][1]
        self._got += len(lines)
        self._log.push(made)
        self._status.text = f"{self._got} lines, the last 5000 are kept here. Following."

    def _filter(self) -> None:
        self._log.filter(self._search.value or "", _LEVELS[self._level.value or ""])

    def _on_following(self, following: bool) -> None:
        self._follow.set_value(following)

    def _download(self) -> None:
        self._log.download(f"{self._view.detail.summary.served_name.replace('/', '-')}-{self._ordinal}.log")
