"""The fields in their groups: basic open, the others made when they are opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from nicegui import ui

from cortex_console.components.text import Text, box, card, heading, labelled
from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.sections import GROUPS, Section, owner_of, sections_of
from cortex_console.pages.model_edit.inputs import FieldInput, OnTyped


def _no_use(draft: Draft) -> frozenset[str]:
    """A file needs no token."""
    return frozenset({"hf_token"}) if draft.engine == "llamacpp" else frozenset()


@dataclass(slots=True)
class _Group:
    name: str
    sections: Sequence[Section]
    panel: ui.expansion | None
    content: ui.element
    made: list[tuple[ui.element, list[FieldInput]]]

    @property
    def names(self) -> list[str]:
        return [field.name for section in self.sections for field in section.fields]


class FieldGroups:
    """All inputs of a draft. `draft` gives the present one; `notes` is further help by field."""

    def __init__(self, draft: Callable[[], Draft], on_typed: OnTyped, notes: Mapping[str, str]) -> None:
        self._draft = draft
        self._on_typed = on_typed
        self._notes = notes
        self._inputs: dict[str, FieldInput] = {}
        self._wrong: Mapping[str, str] = {}
        self._groups: list[_Group] = []
        with box("c-filters").props('role="search"'):
            search = ui.input(placeholder="Find a setting").props('outlined dense clearable type="search"')
            labelled(search.props('debounce="200"').classes("c-search"), "Find a setting")
            self._found = Text("span", "", "c-hint").props('role="status"')
        search.on_value_change(lambda event: self._search(event.value or ""))
        self._place = box("mf-left")
        self.rebuild()

    def rebuild(self) -> None:
        """Draw anew: the task changed, or the whole draft."""
        opened = {group.name for group in self._groups if group.panel is not None and group.panel.value}
        self._inputs.clear()
        self._groups.clear()
        self._place.clear()
        draft = self._draft()
        fields = [field for name, field in draft.fields.items() if name in draft.values and name not in _no_use(draft)]
        sections = sections_of(fields, draft.values.get("task") or "generate")
        with self._place:
            for name, members in groupby(sections, key=lambda section: section.group):
                self._add(name, list(members), name in opened)
        self.count()

    def show(self, draft: Draft) -> None:
        """Values that were set otherwise than by typing."""
        for name, one in self._inputs.items():
            one.show(draft.value(name))
        self.count()

    def show_typed(self, typed: Mapping[str, Any]) -> None:
        """What was typed and is no value."""
        for group in self._groups:
            if set(group.names) & set(typed):
                self._open(group)
        for name, what in typed.items():
            if name in self._inputs:
                self._inputs[name].put(what)

    def complain(self, wrong: Mapping[str, str]) -> list[str]:
        """Show what is wrong at its fields; what belongs to none. Groups that hide an error open."""
        names = [name for group in self._groups for name in group.names]
        at: dict[str, str] = {}
        rest: list[str] = []
        for field, message in wrong.items():
            owner = owner_of(field, names)
            if owner is None:
                rest.append(f"{field}: {message}" if field else message)
            else:
                at[owner] = message
        for group in self._groups:
            if group.panel is not None and set(group.names) & set(at):
                self._open(group)
        self._wrong = at
        for name, one in self._inputs.items():
            one.complain(at.get(name))
        return rest

    def focus_wrong(self) -> None:
        """Put the cursor to the first field that is wrong."""
        for name, one in self._inputs.items():
            if name in self._wrong:
                one.focus()
                return

    def count(self) -> None:
        """Say in the heads of closed groups how much in them is not the default."""
        draft = self._draft()
        for name, one in self._inputs.items():
            one.mark(draft.value(name))
        for group in self._groups:
            if group.panel is not None:
                number = draft.set_in(group.names)
                said = f"{number} set" if number else "all as the engine has them"
                group.panel.props["caption"] = f"{len(group.names)} settings, {said}"

    def _add(self, name: str, sections: Sequence[Section], opened: bool) -> None:
        if name == "basic":
            with card(GROUPS[name]) as content:
                pass
            group = _Group(name, sections, None, content, [])
            self._groups.append(group)
            self._fill(group)
            return
        panel = ui.expansion(GROUPS[name]).classes("mf-group")
        group = _Group(name, sections, panel, panel, [])
        self._groups.append(group)
        panel.on_value_change(lambda event: self._fill(group) if event.value else None)
        if opened:
            self._open(group)

    def _open(self, group: _Group) -> None:
        self._fill(group)
        if group.panel is not None and not group.panel.value:
            group.panel.open()

    def _fill(self, group: _Group) -> None:
        if group.made:
            return
        draft = self._draft()
        with group.content:
            for section in group.sections:
                with box("mf-section") as made:
                    heading(section.title, 3)
                    with box("mf-fields"):
                        fields = [
                            FieldInput(
                                field, draft.value(field.name), self._on_typed, note=self._notes.get(field.name, "")
                            )
                            for field in section.fields
                        ]
                group.made.append((made, fields))
                for one in fields:
                    self._inputs[one.field.name] = one
                    one.complain(self._wrong.get(one.field.name))

    def _search(self, wanted: str) -> None:
        found = 0
        for group in self._groups:
            self._fill(group)
            hits = 0
            for section, fields in group.made:
                matching = [one for one in fields if one.matches(wanted)]
                for one in fields:
                    one.box.visible = one in matching
                section.visible = bool(matching)
                hits += len(matching)
            found += hits
            if group.panel is not None:
                group.panel.set_value(bool(wanted) and bool(hits))
            (group.panel or group.content).visible = bool(hits)
        self._found.text = f"{found} found" if wanted else ""
