"""Dialogs that ask for several values at once, with what the registry says of each beside it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement

from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.text import Text, box, heading, labelled
from cortex_console.domain.advice import next_step
from cortex_console.errors import ConsoleError

Values = dict[str, Any]
Submit = Callable[[Values], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Field:
    """One value that is asked for. `name` is the registry's, so that its errors find the field."""

    name: str
    label: str
    kind: Literal["text", "secret", "long", "number", "choice", "several", "switch", "date"] = "text"
    value: Any = ""
    hint: str = ""
    options: Mapping[Any, str] = field(default_factory=dict[Any, str])
    required: bool = False
    new_values: bool = False
    """Of `several`: people may add their own."""


class Form:
    """The fields, drawn where it is made."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._made: dict[str, ui.element] = {}
        for position, one in enumerate(fields):
            made = _draw(one)
            self._made[one.name] = made
            if position == 0:
                made.props("autofocus")
        self._alert = Text("p", "", "c-form-error").props('role="alert"')
        self._alert.visible = False

    @property
    def values(self) -> Values:
        """What was given; texts without white space around them."""
        found = {name: getattr(made, "value", None) for name, made in self._made.items()}
        return {name: value.strip() if isinstance(value, str) else value for name, value in found.items()}

    def complete(self) -> bool:
        """Whether what is required is there; says so at the fields where it is not."""
        values, ok = self.values, True
        for one in self._fields:
            missing = one.required and values[one.name] in ("", None, [])
            self._mark(one.name, f"{one.label} is missing." if missing else None)
            ok = ok and not missing
        self._alert.visible = False
        return ok

    def show(self, error: ConsoleError) -> None:
        """The registry's refusal: at the fields it names, the rest below them."""
        rest: list[str] = []
        for wrong in error.fields:
            name = next((name for name in self._made if wrong.field == name or wrong.field.startswith(f"{name}.")), "")
            if name:
                self._mark(name, wrong.message)
            else:
                rest.append(f"{wrong.field}: {wrong.message}" if wrong.field else wrong.message)
        if rest or not error.fields:
            told = " ".join(rest) or error.message
            self._alert.text = f"{told} {error.code} · {next_step(error.code, error.status)}"
            self._alert.visible = True

    def _mark(self, name: str, message: str | None) -> None:
        made = self._made[name]
        if isinstance(made, ValidationElement):
            made.error = message


async def ask_form(title: str, fields: Sequence[Field], act: str, submit: Submit, *, text: str = "") -> bool:
    """Ask; true when `submit` took the values. It stays open, with the reasons, while `submit` raises ConsoleError."""
    with dialog(title) as made:
        heading(title, 2)
        if text:
            Text("p", text, "c-hint")
        form = Form(fields)

        async def send() -> None:
            if not form.complete():
                return
            try:
                await submit(form.values)
            except ConsoleError as error:
                if error.is_signed_out:
                    raise
                form.show(error)
                return
            made.submit(True)

        with box("c-dialog-foot"):
            button("Cancel", lambda: made.submit(False), kind="quiet")
            button(act, send, kind="primary")
    done = await made
    made.delete()
    return bool(done)


def _draw(one: Field) -> ui.element:
    made = _element(one).classes("c-field")
    if one.kind == "switch":
        if one.hint:
            Text("p", one.hint, "c-hint c-switch-hint")
        return made
    if one.hint:
        made.props["hint"] = one.hint
    return made.props("outlined dense stack-label" if one.kind in ("choice", "several") else "outlined dense")


def _element(one: Field) -> ui.element:
    label = one.label
    match one.kind:
        case "text":
            return ui.input(label, value=one.value)
        case "secret":
            return ui.input(label, value=one.value, password=True, password_toggle_button=True).props(
                'autocomplete="new-password"'
            )
        case "long":
            return ui.textarea(label, value=one.value).props("autogrow")
        case "number":
            return ui.number(label, value=one.value)
        case "choice":
            return labelled(ui.select(dict(one.options), label=label, value=one.value).props("options-dense"), label)
        case "date":
            return ui.input(label, value=one.value).props('type="date" stack-label')
        case "several":
            made = ui.select(
                dict(one.options) if one.options else list(one.value or ()),
                label=label,
                value=list(one.value or ()),
                multiple=True,
                new_value_mode="add-unique" if one.new_values else None,
            )
            return labelled(made.props("options-dense use-chips"), label)
        case "switch":
            return ui.switch(label, value=bool(one.value))
