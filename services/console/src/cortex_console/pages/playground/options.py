"""System prompt and parameters of a conversation."""

from collections.abc import Callable
from typing import Any

from nicegui import ui

from cortex_console.components.text import box
from cortex_console.domain.chat import Conversation, parameters_of

_NUMBERS = (
    ("temperature", "Temperature", 0.0, 2.0, 0.1, "0 is exact, 1 is lively"),
    ("top_p", "Top p", 0.0, 1.0, 0.05, "likeliest tokens that make up this share"),
    ("max_tokens", "Longest answer", 1, 10_000_000, 1, "tokens"),
    ("presence_penalty", "Presence penalty", -2.0, 2.0, 0.1, "against subjects there were"),
    ("frequency_penalty", "Frequency penalty", -2.0, 2.0, 0.1, "against words there were"),
    ("seed", "Seed", -(2**53), 2**53, 1, "the same answer again"),
)


class OptionsPanel:
    """Folded until it is asked for. Fields that are left open take what the model has for itself."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._fields: dict[str, ui.number] = {}
        self._silent = False
        with box("c-card pg-options") as self.element:
            self._system = ui.textarea("System prompt", on_change=self._changed)
            self._system.props('outlined dense autogrow maxlength="50000" debounce="300"').classes("c-field")
            with box("pg-option-grid"):
                for name, label, least, most, step, hint in _NUMBERS:
                    made = ui.number(label, min=least, max=most, step=step, on_change=self._changed)
                    made.props(
                        f'outlined dense clearable stack-label placeholder="model\'s own" hint="{hint}" debounce="300"'
                    )
                    self._fields[name] = made
        self.element.visible = False

    def toggle(self) -> None:
        """Unfold, or fold."""
        self.element.visible = not self.element.visible

    def show(self, conversation: Conversation) -> None:
        """Those of another conversation."""
        self._silent = True
        self._system.value = conversation.system
        for name, made in self._fields.items():
            made.value = conversation.parameters.get(name)
        self._silent = False

    def read_into(self, conversation: Conversation) -> None:
        """What is set now."""
        conversation.system = self._system.value or ""
        conversation.parameters = self.parameters

    @property
    def parameters(self) -> dict[str, Any]:
        """What was set."""
        return parameters_of({name: made.value for name, made in self._fields.items()})

    def _changed(self) -> None:
        if not self._silent:
            self._on_change()
