"""The form of a model: inputs beside what would become of them, judged while people type."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicegui import ui

from cortex_console.components.notify import explain, tell
from cortex_console.components.text import Text, box
from cortex_console.components.unfinished import Unfinished
from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.fields import Widget
from cortex_console.domain.form.latest import Latest
from cortex_console.domain.form.memory import Outlook, Proposal, settled, useful
from cortex_console.domain.form.refusals import of_error, of_names
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_edit.groups import FieldGroups
from cortex_console.pages.model_edit.outlook import OutlookView, Shown

RETRY_S = 3.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What a form begins with."""

    draft: Draft
    dry_run: Callable[[Draft], Awaitable[Outlook]]
    base: Draft | None = None
    """What is stored, to show what differs; None for a new model."""
    own_id: str | None = None
    taken: Mapping[str, str] = field(default_factory=dict[str, str])
    advice: Callable[[], Awaitable[tuple[Proposal, ...]]] | None = None
    """Asked once it is drawn: it takes longer than the rest."""
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    unfinished: Unfinished | None = None


class ModelForm:
    """Drawn by `build`; `actions` makes the buttons of its foot."""

    def __init__(self, setup: Setup, actions: Callable[[], None]) -> None:
        self.draft = setup.draft
        self.base = setup.base
        self._setup = setup
        self._actions = actions
        self._outlook: Outlook | None = None
        self._refused: dict[str, str] = {}
        self._typed_last: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._away = ""
        self._latest = Latest(self._ask)
        self._advice: tuple[Proposal, ...] = ()

    def build(self) -> None:
        """Draw it, and ask what would become of it."""
        with box("mf-layout"):
            with box("mf-left"):
                self._groups = FieldGroups(lambda: self.draft, self._typed, self._setup.notes)
            self._view = OutlookView(self.draft.engine, self._apply)
        with box("mf-bar"):
            self._status = Text("div", "", "mf-bar-text").props('role="status"')
            self._actions()
        self._show()
        ui.timer(0, self._begin, once=True)
        ui.timer(0, self._read_advice, once=True)

    async def refresh(self) -> None:
        """Ask the registry what would become of the draft; once more if it changed meanwhile."""
        self._keep()
        await self._latest()
        self._show()

    async def ready(self) -> bool:
        """Whether nothing is wrong; else the first wrong field gets the cursor."""
        await self.refresh()
        if not self._wrong():
            return True
        self._groups.focus_wrong()
        explain("Correct what is marked first.")
        return False

    def refuse(self, error: ConsoleError) -> None:
        """The registry took it not: show why at the fields. Raises what is no fault of a field."""
        if error.is_signed_out or error.status not in (409, 422) or error.code == "conflict":
            raise error
        self._refused = of_error(error)
        self._show()
        self._groups.focus_wrong()

    async def reset(self, draft: Draft, base: Draft | None) -> None:
        """Another draft, say that of a newer version."""
        self.draft, self.base = draft, base
        self._groups.show(draft)
        await self.refresh()

    async def put_source(self, path: str) -> None:
        """Another file or folder of the models folder."""
        self.draft = self.draft.having("local_path", path).having("repo_id", None)
        await self.refresh()

    def changed(self) -> bool:
        """Whether something differs from what is stored."""
        return self.base is not None and bool(self.draft.patch(self.base))

    def forget(self) -> None:
        """It was sent: nothing of it is to come back."""
        if self._setup.unfinished is not None:
            self._setup.unfinished.keep({})

    async def _begin(self) -> None:
        await self._bring_back()
        await self.refresh()

    async def _bring_back(self) -> None:
        """What was typed before the page was loaded again."""
        typed = await self._setup.unfinished.back() if self._setup.unfinished is not None else {}
        if not typed:
            return
        before = self.draft.values.get("task")
        self.draft = self.draft.retyped(typed)
        self._typed_last |= typed
        if self.draft.values.get("task") != before:
            self._groups.rebuild()
        self._groups.show(self.draft)
        self._groups.show_typed({name: typed[name] for name in self.draft.wrong if name in typed})
        tell("What you had typed here is back.")

    def _keep(self) -> None:
        if self._setup.unfinished is None:
            return
        wrong = {
            name: self._typed_last[name]
            for name in self.draft.wrong
            if name in self._typed_last and self.draft.fields[name].widget is not Widget.SECRET
        }
        unfinished = self.draft.typed_since(self.base or self._setup.draft) | wrong
        if unfinished != self._kept:
            self._kept = unfinished
            self._setup.unfinished.keep(unfinished)

    async def _typed(self, name: str, what: Any) -> None:
        before = self.draft.values.get("task")
        self._typed_last[name] = what
        self.draft = self.draft.typed(name, what)
        if self.draft.values.get("task") != before:
            self._groups.rebuild()
        self._groups.count()
        self._show()
        await self.refresh()

    async def _apply(self, proposals: Sequence[Proposal]) -> None:
        for one in proposals:
            self.draft = self.draft.having(one.setting, settled(one, self.draft.fields[one.setting]))
        self._groups.show(self.draft)
        await self.refresh()

    async def _read_advice(self) -> None:
        if self._setup.advice is not None:
            self._advice = await self._setup.advice()
            self._show()

    async def _ask(self) -> None:
        asked, self._away = self.draft, ""
        try:
            self._outlook = await self._setup.dry_run(asked)
            self._refused = of_names(asked, self._outlook.served_name, self._setup.taken, self._setup.own_id)
        except ConsoleError as error:
            if error.is_signed_out:
                raise
            if error.status == 0 or error.status >= 500:
                self._away = error.message
                ui.timer(RETRY_S, self.refresh, once=True)
            else:
                self._refused = of_error(error)

    def _wrong(self) -> dict[str, str]:
        return {**self._refused, **self.draft.wrong}

    def _show(self) -> None:
        wrong = self._wrong()
        rest = self._groups.complain(wrong)
        found = self._outlook.estimate.proposals if self._outlook and self._outlook.estimate else ()
        # What fits now outdoes the advice that was given before anything was typed.
        named = {one.setting for one in found}
        proposals = [*found, *(one for one in self._advice if one.setting not in named)]
        changes = self.draft.changes(self.base) if self.base is not None else []
        self._view.show(
            Shown(
                self._outlook,
                (*rest, self._away) if self._away else tuple(rest),
                bool(wrong or self._away),
                tuple(useful(proposals, self.draft.fields, self.draft.values)),
                tuple(changes),
            )
        )
        self._status.text = self._said(wrong)
        self._status.classes(replace="mf-bar-text c-bad-text" if wrong else "mf-bar-text")

    def _said(self, wrong: Mapping[str, str]) -> str:
        if wrong:
            labels = [self.draft.fields[name].label for name in wrong if name in self.draft.fields]
            count = f"{len(wrong)} {'field needs' if len(wrong) == 1 else 'fields need'} correction"
            return f"{count}: {', '.join(labels)}" if labels else count
        if self._away:
            return self._away
        if self._outlook is None:
            return "Looking at it…"
        if self._outlook.fits is None:
            return self._outlook.placement or "Nobody can tell yet whether it fits."
        return f"{'Fits' if self._outlook.fits else 'Does not fit now'}: {self._outlook.placement}"
