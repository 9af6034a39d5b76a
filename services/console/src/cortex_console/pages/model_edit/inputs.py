"""One field of the form: its label, its input, its help or what is wrong."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import events, ui
from nicegui.elements.mixins.validation_element import ValidationElement
from nicegui.elements.mixins.value_element import ValueElement

from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.form.fields import FormField, Widget
from cortex_console.domain.form.typed import shown

OnTyped = Callable[[str, Any], Awaitable[None]]
_DEBOUNCE_MS = 300
_LONG = frozenset({Widget.LONG, Widget.PAIRS, Widget.JSON, Widget.WORDS})
_EXAMPLES = {
    Widget.PAIRS: "NAME=value",
    Widget.WORDS: "--flag value",
    Widget.NAMES: "name, another-name",
    Widget.PLACEMENT: "auto",
    Widget.SECRET: "hf_…",
}


class FieldInput:
    """Drawn where it is made. `on_typed` gets the name and what is in the input."""

    def __init__(self, field: FormField, value: Any, on_typed: OnTyped, *, note: str = "") -> None:
        self.field = field
        self._on_typed = on_typed
        self._quiet = False
        self.box = box(f"mf-field{' mf-wide' if field.widget in _LONG else ''}")
        with self.box:
            if field.widget is not Widget.SWITCH:
                with box("mf-label"):
                    Text("span", field.label)
                    if field.unit:
                        Text("span", field.unit, "mf-unit")
            self.element = self._make(shown(field, value))
            self._help(note)
        self.element.on_value_change(self._changed)
        self.mark(value)

    def show(self, value: Any) -> None:
        """Another value, set by a proposal or by going back."""
        self.put(shown(self.field, value))
        self.mark(value)

    def put(self, typed: Any) -> None:
        """This in the input, without telling anybody."""
        if self.element.value != typed:
            self._quiet = True
            self.element.set_value(typed)
            self._quiet = False

    def mark(self, value: Any) -> None:
        """Whether it is not the default."""
        differs = value != self.field.default and not self.field.required
        self.box.classes(add="mf-changed" if differs else "", remove="" if differs else "mf-changed")

    def complain(self, message: str | None) -> None:
        """What is wrong, in place of the help; nothing when it is right."""
        if isinstance(self.element, ValidationElement) and self.element.error != message:
            self.element.error = message

    def focus(self) -> None:
        """Put the cursor there."""
        self.element.run_method("focus")

    def matches(self, search: str) -> bool:
        """Whether somebody who looks for this means the field."""
        words = f"{self.field.name} {self.field.label} {self.field.help}".lower()
        return all(word in words for word in search.lower().split())

    async def _changed(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if not self._quiet:
            await self._on_typed(self.field.name, event.value)

    def _help(self, note: str) -> None:
        said = " ".join(part for part in (self.field.help, note) if part)
        if not said:
            return
        if self.field.widget is Widget.SWITCH:
            Text("div", said, "mf-switch-help")
        else:
            self.element.props["hint"] = said

    def _make(self, value: Any) -> ValueElement[Any]:
        field = self.field
        match field.widget:
            case Widget.SWITCH:
                return ui.switch(field.label, value=value).classes("c-switch")
            case Widget.CHOICE:
                made = ui.select(dict(field.choices), value=value).props("outlined dense options-dense")
            case Widget.LONG | Widget.PAIRS | Widget.JSON | Widget.WORDS:
                made = ui.textarea(value=value, placeholder=self._placeholder()).props("outlined dense autogrow")
                made.props(f'debounce="{_DEBOUNCE_MS}" spellcheck="false" rows="1"')
            case Widget.SECRET:
                made = ui.input(value=value, placeholder=self._placeholder(), password=True).props("outlined dense")
                made.props(f'debounce="{_DEBOUNCE_MS}" autocomplete="new-password"')
            case _:
                made = ui.input(value=value, placeholder=self._placeholder()).props("outlined dense")
                made.props(f'debounce="{_DEBOUNCE_MS}" spellcheck="false" autocomplete="off"')
                if field.widget is Widget.NUMBER:
                    made.props('inputmode="decimal"')
        labelled(made.classes("c-field"), f"{field.label}, {field.unit}" if field.unit else field.label)
        return made

    def _placeholder(self) -> str:
        if self.field.widget is Widget.JSON:
            return "[ ]" if self.field.array else "{ }"
        return _EXAMPLES.get(self.field.widget) or self.field.empty_means
