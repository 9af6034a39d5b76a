"""Which requests: what can be chosen above the report."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from nicegui import ui

from cortex_console.components.buttons import button
from cortex_console.components.text import box, labelled
from cortex_console.components.toggle import toggle
from cortex_console.domain.usage import RANGES, STATUSES, UsageFilter, choices, engines

_LABELS = {"model": "Model", "key": "API key", "user": "User", "org": "Organisation"}


class UsageFilters:
    """`wanted` is what is chosen."""

    def __init__(self, wanted: UsageFilter, on_change: Callable[[], Awaitable[None]]) -> None:
        self.wanted = wanted
        self._on_change = on_change
        self._selects: dict[str, ui.select] = {}
        self._silent = False
        with box("c-filters").props('role="search"'):
            self._range = toggle("Period", RANGES, wanted.range, self._changed)
            with box("c-line") as self._days:
                self._since, self._until = self._day("From", wanted.since), self._day("Until", wanted.until)
        with box("c-filters"):
            for name, label in _LABELS.items():
                self._add(name, label, {})
            self._add("engine", "Engine", engines())
            self._add("status", "Status", STATUSES)
            self._clear = button("Clear", self._clear_all, icon="o_close", kind="quiet")
        self._show_state()

    def show_names(self, names: Mapping[str, Mapping[str, str]]) -> None:
        """What there is to choose from."""
        self._silent = True
        for name, known in names.items():
            chosen = getattr(self.wanted, name)
            self._selects[name].set_options(_options(_LABELS[name], choices(known, chosen)), value=chosen)
        self._silent = False

    def choose(self, **changes: str) -> None:
        """Choose without telling."""
        self._silent = True
        for name, value in changes.items():
            select = self._selects[name]
            if value and isinstance(select.options, dict) and value not in select.options:
                select.set_options(_options(_LABELS.get(name, name), choices({}, value)), value=value)
            else:
                select.value = value
        self._silent = False
        self._read()

    def _add(self, name: str, label: str, known: Mapping[str, str]) -> None:
        chosen = getattr(self.wanted, name)
        made = ui.select(
            _options(label, choices(known, chosen)), value=chosen, on_change=self._changed, with_input=False
        )
        self._selects[name] = made
        labelled(made.props("outlined dense options-dense").classes("c-select us-select"), label)

    def _day(self, label: str, value: str) -> ui.input:
        made = ui.input(value=value, on_change=self._changed)
        labelled(made.props('outlined dense type="date" debounce="400"').classes("us-day"), label)
        return made

    async def _changed(self) -> None:
        if self._silent:
            return
        before = self.wanted
        self._read()
        if self.wanted != before:
            await self._on_change()

    def _read(self) -> None:
        chosen = {name: str(select.value or "") for name, select in self._selects.items()}
        period = {"range": str(self._range.value), "since": self._since.value or "", "until": self._until.value or ""}
        self.wanted = UsageFilter(**period, **chosen)
        self._show_state()

    def _show_state(self) -> None:
        self._days.visible = self._range.value == "custom"
        kept = UsageFilter(self.wanted.range, self.wanted.since, self.wanted.until)
        self._clear.visible = self.wanted != kept

    async def _clear_all(self) -> None:
        self.choose(**dict.fromkeys(self._selects, ""))
        self.wanted = replace(self.wanted)
        await self._on_change()


def _options(label: str, known: Mapping[str, str]) -> dict[str, str]:
    return {"": f"{label}: all"} | dict(known)
