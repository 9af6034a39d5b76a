"""What a page shows when there is nothing, or when it could not be read."""

from collections.abc import Callable

from nicegui import ui

from cortex_console.components.text import Text, box
from cortex_console.domain.advice import next_step
from cortex_console.errors import ConsoleError


def empty_state(icon: str, title: str, text: str, actions: Callable[[], object] | None = None) -> ui.element:
    """Says what to do next; `actions` makes buttons."""
    made = box("c-empty")
    with made:
        ui.icon(icon).classes("c-empty-icon").props('aria-hidden="true"')
        Text("h2", title, "c-empty-title")
        Text("p", text, "c-empty-text")
        if actions is not None:
            with box("c-line c-center"):
                actions()
    return made


def error_state(error: ConsoleError) -> ui.element:
    """In place of what could not be read."""
    made = box("c-empty").props('role="alert"')
    with made:
        ui.icon("o_error_outline").classes("c-empty-icon c-bad-text").props('aria-hidden="true"')
        Text("h2", error.message, "c-empty-title")
        Text("p", f"{error.code} · {next_step(error.code, error.status)}", "c-empty-text")
    return made
