"""A model that exists: its settings, what a change would do, its versions."""

import asyncio
from collections.abc import Mapping
from typing import Any

from nicegui import ui

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify
from cortex_console.components.badge import engine_badge, state_badge
from cortex_console.components.buttons import button, link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import PageContext
from cortex_console.components.text import Text, box, code
from cortex_console.components.unfinished import Unfinished
from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.fields import FormField
from cortex_console.domain.form.library import ordered
from cortex_console.domain.form.memory import Outlook, Proposal
from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.models import ModelSummary
from cortex_console.domain.shapes import Row, text
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_edit.form import ModelForm, Setup
from cortex_console.pages.model_edit.history import History
from cortex_console.pages.model_edit.new import advice_for, notes_for, save_recipe
from cortex_console.ports import Batch


async def build_edit(context: PageContext) -> None:
    """Draw the form of a model."""
    await EditModel(context).build()


class EditModel:
    """The form of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = ModelFormApi(context.api)
        self._version = 0

    async def build(self) -> None:
        """Draw it."""
        reference = self._context.parameters["reference"]
        answer, known, self._taken, self._gpus = await asyncio.gather(
            self._api.model(reference), self._api.fields(), self._api.names(), self._api.gpus()
        )
        self._take(answer)
        name = self._model.name
        with page_header(f"Edit {name}", back=(f"/models/{self._model.id}", name)):
            if not self._model.external:
                button("Other file", self._other_file, icon="o_folder_open")
                button("Save as recipe", self._save_recipe, icon="o_library_add")
        if self._model.external:
            said = "Its engine is no concern of Cortex: where it is found is set below Settings, Upstreams."
            empty_state("o_dns", "Others run this model", said, lambda: link_button("Settings", "/settings"))
            return
        fields = known.get(self._model.engine, ())
        base = Draft.new(self._model.engine, fields, answer)
        self._head(answer)
        self._conflict = box("c-stack")
        with ui.tabs().classes("mf-tabs").props("align=left inline-label") as tabs:
            settings, versions = ui.tab("Settings"), ui.tab("Versions")
        with ui.tab_panels(tabs, value=settings, animated=False).classes("mf-panels c-grow"):
            with ui.tab_panel(settings):
                self._make_form(base, answer)
            with ui.tab_panel(versions):
                self._history = History(self._api, self._model.id, base.fields, self._reload)
        tabs.on_value_change(self._show_tab)
        self._context.on_events(self._on_events)

    def _take(self, answer: Row) -> None:
        self._model = ModelSummary.of(answer)
        self._version = self._model.version

    def _head(self, answer: Row) -> None:
        with box("c-card mf-source"):
            engine_badge(self._model.engine)
            with box("mf-source-text"):
                code(text(answer.get("local_path")) or text(answer.get("repo_id")))
                self._said = Text("div", "", "c-hint")
            self._state = box("c-line")
        self._show_head()

    def _show_head(self) -> None:
        self._said.text = f"Served as {self._model.served_name} · version {self._version}"
        self._state.clear()
        with self._state:
            state_badge(self._model.state)

    def _make_form(self, base: Draft, answer: Row) -> None:
        path = text(answer.get("local_path"))
        notes = notes_for(None, self._gpus)
        if answer.get("has_hf_token"):
            notes["hf_token"] = "One is stored; empty keeps it."
        setup = Setup(
            base,
            self._dry_run,
            base=base,
            own_id=self._model.id,
            taken=self._taken,
            advice=lambda: self._advice(path),
            notes=notes,
            unfinished=Unfinished(self._context, f"edit {self._model.id}"),
        )
        self._form = ModelForm(setup, self._actions)
        self._form.build()

    async def _advice(self, path: str) -> tuple[Proposal, ...]:
        return await advice_for(self._api, await self._api.entry(path) if path else None)

    async def _dry_run(self, draft: Draft) -> Outlook:
        return await self._api.dry_run_changed(self._model.id, draft.patch(self._form.base or draft))

    def _actions(self) -> None:
        button("Discard", self._discard, kind="quiet")
        running = self._model.wants_to_run
        button("Save", lambda: self._save(start=False), kind="primary" if running else "plain")
        if not running:
            button("Save and start", lambda: self._save(start=True), icon="o_play_arrow", kind="primary")

    async def _discard(self) -> None:
        base = self._form.base
        if base is not None:
            await self._form.reset(base, base)

    async def _save(self, *, start: bool) -> None:
        if not await self._form.ready():
            return
        base = self._form.base
        patch = self._form.draft.patch(base) if base is not None else {}
        try:
            if patch:
                self._take(await self._api.change(self._model.id, patch, self._version))
            if start:
                self._take(await self._api.start(self._model.id))
        except ConsoleError as error:
            if error.code == "precondition_failed":
                await self._tell_conflict()
                return
            self._form.refuse(error)
            return
        notify.done(_done(bool(patch), start=start, runs=self._model.wants_to_run))
        await self._reload()

    async def _reload(self) -> None:
        """Show what is stored now."""
        answer = await self._api.model(self._model.id)
        self._take(answer)
        self._show_head()
        self._conflict.clear()
        base = self._draft_of(answer)
        await self._form.reset(base, base)
        await self._history.read()

    def _draft_of(self, answer: Row) -> Draft:
        known: Mapping[str, FormField] = self._form.draft.fields
        return Draft.new(self._model.engine, known.values(), answer)

    async def _show_tab(self) -> None:
        await self._history.read()

    async def _on_events(self, batch: Batch) -> None:
        mine = [one for one in batch.events if text(one.data.get("subject")).endswith(self._model.id)]
        if not batch.resync and not any(one.type.startswith("model.") for one in mine):
            return
        answer = await self._api.model(self._model.id)
        if ModelSummary.of(answer).version == self._version:
            self._model = ModelSummary.of(answer)
            self._show_head()
            return
        newer = self._draft_of(answer)
        if self._form.base is not None and not newer.patch(self._form.base):
            self._take(answer)  # started or stopped: no setting differs
            self._show_head()
        elif not self._form.changed():
            await self._reload()
        else:
            await self._tell_conflict()

    async def _tell_conflict(self) -> None:
        answer = await self._api.model(self._model.id)
        newer, base = self._draft_of(answer), self._form.base
        if base is None:
            return
        theirs = newer.changes(base)

        async def keep_mine() -> None:
            mine = newer.rebased(self._form.draft, base)
            self._take(answer)
            self._show_head()
            self._conflict.clear()
            await self._form.reset(mine, newer)

        self._conflict.clear()
        with self._conflict, box("c-card").props('role="alert"'):
            Text("div", f"Somebody changed this model meanwhile (version {text(answer.get('version'))}).", "c-strong")
            said = "; ".join(f"{one.label} {one.before} → {one.after}" for one in theirs) or "No setting differs."
            Text("div", said, "c-hint")
            with box("c-line"):
                button("Keep my edits on top", keep_mine, kind="primary")
                button("Take theirs", self._reload)

    async def _other_file(self) -> None:
        entries, _ = await self._api.library()
        options = {
            one.path: f"{one.path} · {one.quantization} · {bytes_text(one.size)}"
            for one in ordered(entries)
            if one.usable and one.engine == self._model.engine
        }
        if not options:
            notify.tell("Nothing else in the models folder suits this engine.")
            return
        now = text(self._form.draft.values.get("local_path"))
        first = now if now in options else next(iter(options))

        async def submit(values: dict[str, Any]) -> None:
            await self._form.put_source(values["path"])

        asked = Field("path", "File or folder", kind="choice", value=first, options=options, required=True)
        said = "What the model is made of. It counts once it is saved."
        await ask_form("Other file", [asked], "Use it", submit, text=said)

    async def _save_recipe(self) -> None:
        await save_recipe(self._api, self._form.draft)


def _done(changed: bool, *, start: bool, runs: bool) -> str:
    if start:
        return "Saved and starting." if changed else "Starting."
    if not changed:
        return "Nothing was changed."
    return "Saved. Replicas are replaced where they must be." if runs else "Saved."
