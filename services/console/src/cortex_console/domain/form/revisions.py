"""Versions of a model: who made them, and what differs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.form.draft import Change, change_of
from cortex_console.domain.form.fields import FormField, label_of
from cortex_console.domain.shapes import Row, rows, text, whole

_ACTIONS = {
    "model.create": "Created",
    "model.update": "Changed",
    "model.start": "Started",
    "model.stop": "Stopped",
    "model.restart": "Restarted",
    "model.archive": "Archived",
    "model.unarchive": "Brought back",
    "model.rollback": "Rolled back",
    "model.clone": "Cloned",
    "model.import": "Imported",
}
_NO_SETTINGS = frozenset({"desired_state", "restart_generation", "archived"})
"""Acts, not settings: a roll back leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One version."""

    version: int
    action: str
    author: str
    at: str
    changed: tuple[str, ...]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one revision."""
        action = text(answer.get("action"))
        return cls(
            version=whole(answer.get("version")),
            action=_ACTIONS.get(action, action.rpartition(".")[2].replace("_", " ").capitalize()),
            author=text(answer.get("author")),
            at=text(answer.get("at")),
            changed=tuple(answer.get("changed") or ()),
        )

    @property
    def summary(self) -> str:
        """Which fields it changed."""
        names = [label_of(name) for name in self.changed if name not in _NO_SETTINGS]
        return ", ".join(names)


def differences(answer: Row, fields: Mapping[str, FormField], *, backwards: bool = False) -> list[Change]:
    """Which settings differ between two versions. `backwards`: from the newer one to the older one."""
    found: list[Change] = []
    for one in rows(answer.get("items")):
        name = text(one.get("field"))
        if name in _NO_SETTINGS:
            continue
        pair = (one.get("before"), one.get("after"))
        before, after = reversed(pair) if backwards else pair
        found.append(change_of(fields.get(name), name, before, after))
    return found
