"""Buttons that show that they work, and say why they cannot be used."""

from collections.abc import Awaitable, Callable
from typing import Literal

from nicegui import ui

from cortex_console.components.notify import explain
from cortex_console.components.text import labelled

Kind = Literal["primary", "plain", "danger", "quiet"]
Handler = Callable[[], Awaitable[None] | None]


def button(
    label: str, on_click: Handler, *, icon: str = "", kind: Kind = "plain", why_not: str | None = None
) -> ui.button:
    """A button with a word on it. With `why_not` it is disabled and says so to everybody, the keyboard's users too."""
    made = ui.button(label, icon=icon or None, color=None)
    made.props("no-caps unelevated").classes(f"c-button c-button-{kind}")
    _wire(made, on_click, why_not)
    return made


def icon_button(icon: str, label: str, on_click: Handler, *, why_not: str | None = None) -> ui.button:
    """A button without a word; `label` is what it is called."""
    made = ui.button(icon=icon, color=None).props("flat round dense").classes("c-icon-button")
    labelled(made, label)
    _wire(made, on_click, why_not)
    if why_not is None:
        with made:
            ui.tooltip(label)
    return made


def link_button(label: str, target: str, *, icon: str = "", kind: Kind = "plain") -> ui.button:
    """A link that looks like a button."""
    made = ui.button(label, icon=icon or None, color=None)
    made.props("no-caps unelevated").classes(f"c-button c-button-{kind}")
    made.props["href"] = target
    return made


def _wire(made: ui.button, on_click: Handler, why_not: str | None) -> None:
    if why_not is not None:
        # Not `disabled`: a disabled button gets no focus, so nobody would hear the reason.
        made.props('aria-disabled="true"').classes("c-disabled")
        with made:
            ui.tooltip(why_not)
        made.on_click(lambda: explain(why_not))
        return

    async def work() -> None:
        made.props(add="loading")
        try:
            result = on_click()
            if result is not None:
                await result
        finally:
            if not made.is_deleted:
                made.props(remove="loading")

    made.on_click(work)
