"""A model that is being made or changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from cortex_console.domain.form.fields import FormField, Widget, label_of
from cortex_console.domain.form.sections import DEFAULTS, common_defaults
from cortex_console.domain.form.typed import WrongValue, parse, said, shown
from cortex_console.domain.shapes import Row

SOURCES = ("local_path", "repo_id")


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs."""

    field: str
    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Draft:
    """Every field of one engine's model with its value, and what is wrong with what was typed."""

    engine: str
    fields: Mapping[str, FormField]
    values: Mapping[str, Any]
    wrong: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def new(cls, engine: str, fields: Iterable[FormField], given: Row) -> Self:
        """With defaults where nothing is given."""
        known = {one.name: one for one in (*fields, *common_defaults())}
        own = {name: one for name, one in known.items() if not name.startswith(f"{DEFAULTS}.")}
        values = {name: given.get(name, one.default) for name, one in own.items()}
        return cls(engine, known, values)

    def value(self, name: str) -> Any:
        """Of a field; of `request_defaults` what has no field of its own."""
        if name.startswith(f"{DEFAULTS}."):
            return self._defaults().get(name.partition(".")[2])
        if name == DEFAULTS:
            return {key: one for key, one in self._defaults().items() if f"{DEFAULTS}.{key}" not in self.fields}
        return self.values.get(name)

    def typed(self, name: str, what: Any) -> Self:
        """After somebody typed into a field."""
        try:
            value = parse(self.fields[name], what)
        except WrongValue as error:
            return replace(self, wrong={**self.wrong, name: str(error)})
        return self.having(name, value)

    def having(self, name: str, value: Any) -> Self:
        """With another value, which is right."""
        wrong = {key: message for key, message in self.wrong.items() if key != name}
        if name.startswith(f"{DEFAULTS}."):
            key = name.partition(".")[2]
            rest = {one: old for one, old in self._defaults().items() if one != key}
            value, name = rest if value is None else rest | {key: value}, DEFAULTS
        elif name == DEFAULTS:
            common = {key: one for key, one in self._defaults().items() if f"{DEFAULTS}.{key}" in self.fields}
            value = common | dict(value or {})
        return replace(self, values={**self.values, name: value}, wrong=wrong)

    def description(self) -> dict[str, Any]:
        """For `POST /admin/models`: what is not the default."""
        told = {name: value for name, value in self.values.items() if value != self.fields[name].default}
        return {"engine_type": self.engine, **told}

    def patch(self, before: Self) -> dict[str, Any]:
        """For `PATCH`: what differs; null puts a default back."""
        return {
            name: None if value == self.fields[name].default else value
            for name, value in self.values.items()
            if value != before.values.get(name)
        }

    def rebased(self, mine: Self, base: Self) -> Self:
        """This one, with what `mine` changed of `base`: my edits over somebody else's newer version."""
        changed = {name: value for name, value in mine.values.items() if value != base.values.get(name)}
        return replace(self, values={**self.values, **changed}, wrong=mine.wrong)

    def changes(self, before: Self) -> list[Change]:
        """What differs, in words; secrets only as such."""
        return [
            change_of(self.fields[name], name, before.values.get(name), value)
            for name, value in self.values.items()
            if value != before.values.get(name)
        ]

    def typed_since(self, before: Self) -> dict[str, Any]:
        """What inputs show where they differ, so that it can be typed again; secrets are left out."""
        return {
            name: shown(known, self.value(name))
            for name, known in self.fields.items()
            if known.widget is not Widget.SECRET and self.value(name) != before.value(name)
        }

    def retyped(self, typed: Row) -> Self:
        """After all of this was typed; fields that there are no more are left out."""
        draft = self
        for name in draft.fields.keys() & typed.keys():
            draft = draft.typed(name, typed[name])
        return draft

    def set_apart(self) -> int:
        """How many settings are not the default."""
        return len(self.description()) - 1

    def set_in(self, names: Iterable[str]) -> int:
        """How many of these settings are not the default."""
        return sum(1 for name in names if self.value(name) != self.fields[name].default)

    def _defaults(self) -> dict[str, Any]:
        return dict(self.values.get(DEFAULTS) or {})


def change_of(known: FormField | None, name: str, before: Any, after: Any) -> Change:
    """A difference in words."""
    shape = known or FormField(name, label_of(name), "", Widget.TEXT, "advanced")
    if shape.widget is Widget.SECRET:
        return Change(name, shape.label, "kept" if before is None else "set", "replaced" if after else "removed")
    return Change(name, shape.label, said(shape, before), said(shape, after))
