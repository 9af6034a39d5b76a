"""Controls above a list."""

from collections.abc import Awaitable, Callable, Mapping

from nicegui import ui

from cortex_console.components.text import labelled

OnChange = Callable[[], Awaitable[None] | None]


def search_field(label: str, on_change: OnChange, *, value: str = "", placeholder: str = "Search") -> ui.input:
    """Reports a moment after the last key."""
    made = ui.input(placeholder=placeholder, value=value)
    made.props('outlined dense clearable type="search" debounce="250"')
    labelled(made.classes("c-search"), label)
    made.on_value_change(on_change)
    return made


def choice(label: str, names: Mapping[str, str], on_change: OnChange, *, value: str = "") -> ui.select:
    """One of several; the empty value asks for all."""
    options = {"": f"{label}: all"} | dict(names)
    made = ui.select(options, value=value if value in options else "", on_change=on_change)
    labelled(made.props("outlined dense options-dense").classes("c-select"), label)
    return made
