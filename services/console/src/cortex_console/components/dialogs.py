"""Questions before an act, with what it will do spelled out."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nicegui import ui

from cortex_console.components.buttons import button
from cortex_console.components.text import Text, box, heading, hint, labelled


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    title: str
    consequences: Sequence[str]
    """One sentence for each thing that happens, the important one first."""
    act: str
    """The word on the button: the act, never `OK`."""
    danger: bool = False
    type_to_confirm: str = ""
    """A name to be typed for what cannot be undone."""


@contextmanager
def dialog(label: str, *, role: str = "dialog", wide: bool = False) -> Generator[ui.dialog]:
    """A dialog with its card, closed yet: make its content in the body, then `await` it and `.delete()` it.

    It belongs to the page, not to the button that opened it, which may be drawn anew meanwhile.
    """
    with ui.context.client.content, ui.dialog().props(f"role={role}") as made:
        labelled(made, label)
        with ui.card().classes(f"c-dialog{' c-dialog-wide' if wide else ''}"):
            yield made


async def confirm(question: Question) -> bool:
    """Ask; true when they want it."""
    with dialog(question.title, role="alertdialog") as made:
        heading(question.title, 2)
        with box("c-consequences", "ul"):
            for sentence in question.consequences:
                Text("li", sentence)
        typed = None
        if question.type_to_confirm:
            hint(f"Type {question.type_to_confirm} to confirm.")
            typed = ui.input(label="Name").props("outlined dense autofocus").classes("c-field")
        with box("c-dialog-foot"):
            button("Cancel", lambda: made.submit(False), kind="quiet")
            act = button(question.act, lambda: made.submit(True), kind="danger" if question.danger else "primary")
            if typed is None:
                act.props("autofocus")
            else:
                act.bind_enabled_from(typed, "value", lambda value: value == question.type_to_confirm)
    wanted = await made
    made.delete()
    return bool(wanted)


async def ask_text(title: str, label: str, act: str, *, value: str = "") -> str | None:
    """Ask for one line of text; None when they do not want to."""
    with dialog(title) as made:
        heading(title, 2)
        field = ui.input(label=label, value=value).props("outlined dense autofocus").classes("c-field")
        field.on("keydown.enter", lambda: made.submit(field.value))
        with box("c-dialog-foot"):
            button("Cancel", lambda: made.submit(None), kind="quiet")
            button(act, lambda: made.submit(field.value), kind="primary")
    answer = await made
    made.delete()
    return answer.strip() or None if isinstance(answer, str) else None
