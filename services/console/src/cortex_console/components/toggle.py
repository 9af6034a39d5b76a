"""One of a few, all of them in sight."""

from collections.abc import Awaitable, Callable, Mapping

from nicegui import ui

from cortex_console.components.text import labelled

# Colours that Quasar does not know: its own would win over those of the theme.
_PROPS = "no-caps unelevated toggle-color=theme toggle-text-color=theme"


def toggle(
    label: str, options: Mapping[str, str], value: str, on_change: Callable[[], Awaitable[None] | None] | None = None
) -> ui.toggle:
    """Buttons beside each other; `label` is what they decide."""
    made = ui.toggle(dict(options), value=value if value in options else next(iter(options)), on_change=on_change)
    labelled(made.props(_PROPS).classes("c-toggle"), label)
    return made
