"""Beside the form: what the model will take, what would fit better, what is worth knowing, the command line."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from nicegui import ui

from cortex_console.components.badge import badge
from cortex_console.components.buttons import button
from cortex_console.components.memory_bars import memory_bars
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box, card, facts, heading, hint
from cortex_console.domain.form.command import command_text
from cortex_console.domain.form.draft import Change
from cortex_console.domain.form.fields import label_of
from cortex_console.domain.form.memory import Estimate, Outlook, Proposal, largest

Apply = Callable[[Sequence[Proposal]], Awaitable[None]]


def largest_button(estimate: Estimate, engine: str, apply: Apply) -> None:
    """Takes the largest context that fits, where it is another one than now."""
    found = largest(estimate, engine)
    if found is not None:
        made = button(f"Use {found.value:,} tokens of context", lambda: apply([found]), icon="o_open_in_full")
        made.classes("mf-small mf-start")


@dataclass(frozen=True, slots=True)
class Shown:
    """All that stands there."""

    outlook: Outlook | None = None
    problems: tuple[str, ...] = ()
    """What is wrong with no field of the form, or why there is no outlook."""
    stale: bool = False
    """Something is wrong, so the outlook is that of before."""
    proposals: tuple[Proposal, ...] = ()
    changes: tuple[Change, ...] = field(default=())


class OutlookView:
    """Drawn where it is made."""

    def __init__(self, engine: str, apply: Apply) -> None:
        self._engine = engine
        self._apply = apply
        self._shown: Shown | None = None
        self._place = box("mf-right")
        with self._place, card("Memory"):
            ui.skeleton().props("height=90px")

    def show(self, shown: Shown) -> None:
        """Show this instead."""
        if shown == self._shown:
            return
        self._shown = shown
        self._place.clear()
        with self._place:
            for problem in shown.problems:
                Text("p", problem, "mf-notice c-bad").props('role="alert"')
            if shown.changes:
                self._changes(shown.changes)
            if shown.outlook is not None:
                self._memory(shown.outlook, shown.stale)
            elif shown.stale:
                with card("Memory"):
                    hint("Shown once what is marked is right.")
            else:
                with card("Memory"):
                    ui.skeleton().props("height=90px")
            if shown.proposals:
                self._proposals(shown.proposals)
            if shown.outlook is not None:
                self._warnings(shown.outlook)
                self._command(shown.outlook)

    def _memory(self, outlook: Outlook, stale: bool) -> None:
        with card():
            with box("c-line"):
                heading("Memory", 2)
                box("c-spring")
                if stale:
                    Text("span", "not up to date", "c-hint")
                if outlook.estimate is not None:
                    badge(*outlook.estimate.verdict)
            if outlook.estimate is None:
                hint(outlook.estimate_reason or "Not known.")
                return
            if not outlook.estimate.known:
                Text("p", f"At least this: {outlook.estimate.reason}", "mf-notice c-warn")
            memory_bars(outlook.estimate)
            facts(outlook.estimate.facts())
            largest_button(outlook.estimate, self._engine, self._apply)
            if outlook.placement:
                hint(f"Placement now: {outlook.placement}.".replace("..", "."))
            if outlook.evicts:
                word = "model" if outlook.evicts == 1 else "models"
                Text("p", f"{outlook.evicts} sleeping {word} would be stopped to make room.", "mf-notice c-warn")

    def _proposals(self, proposals: Sequence[Proposal]) -> None:
        with card():
            with box("c-line"):
                heading("Suggestions", 2)
                box("c-spring")
                if len(proposals) > 1:
                    made = button("Apply all", lambda: self._apply(proposals), kind="quiet")
                    made.classes("mf-small")
            for one in proposals:
                self._proposal(one)

    def _proposal(self, one: Proposal) -> None:
        async def apply() -> None:
            await self._apply([one])

        with box("mf-tip"):
            with box("mf-tip-text"):
                Text("div", one.label, "c-strong")
                Text("div", one.reason, "c-hint")
            made = button("Apply", apply).classes("mf-small")
            made.props["aria-label"] = f"Apply {one.label}"

    def _changes(self, changes: Sequence[Change]) -> None:
        with card("1 change" if len(changes) == 1 else f"{len(changes)} changes"), box("c-stack"):
            for one in changes:
                with box("mf-change"):
                    Text("span", f"{one.label} ", "c-strong")
                    Text("span", one.before, "c-muted")
                    Text("span", " → ")
                    Text("span", one.after)

    def _warnings(self, outlook: Outlook) -> None:
        said = [*outlook.warnings, *(("", text) for text in (outlook.estimate.warnings if outlook.estimate else ()))]
        unique = list(dict.fromkeys(said))
        if not unique:
            return
        with card("Worth knowing"):
            for field_name, message in unique:
                with box("mf-tip"):
                    ui.icon("o_info").props('aria-hidden="true"').classes("c-muted")
                    text = f"{label_of(field_name)}: {message}" if field_name else message
                    Text("div", text, "mf-tip-text")

    def _command(self, outlook: Outlook) -> None:
        with card():
            with box("c-line"):
                heading("Command line", 2)
                box("c-spring")
                if outlook.argv:
                    copy_button(command_text(outlook.argv), kind="quiet").classes("mf-small")
            if not outlook.argv:
                hint(outlook.command_reason or "Not known.")
                return
            Text("pre", command_text(outlook.argv), "c-pre mf-command").props('tabindex="0"')
