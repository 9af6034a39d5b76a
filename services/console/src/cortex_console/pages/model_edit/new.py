"""A new model: choose what it is made of, look at what would become of it, make it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify
from cortex_console.components.badge import badge, engine_badge
from cortex_console.components.buttons import button, link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import PageContext
from cortex_console.components.text import Text, box, code
from cortex_console.components.unfinished import Unfinished
from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.library import LibraryEntry, beginning, name_for
from cortex_console.domain.form.memory import Proposal, beside, proposals_of
from cortex_console.domain.shapes import text
from cortex_console.domain.states import engine_name
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_edit.choose import build_choice
from cortex_console.pages.model_edit.form import ModelForm, Setup

_NOT_FIELDS = frozenset({"path", "repo", "recipe", "engine"})


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the form starts from, and what its head says."""

    engine: str
    given: Mapping[str, Any]
    why: str
    entry: LibraryEntry | None = None


async def build_new(context: PageContext) -> None:
    """Draw the choice, or, with `?path=`, `?repo=` or `?recipe=`, the form."""
    if not {"path", "repo", "recipe"} & set(context.query):
        page_header("New model", "Choose what it is made of.", back=("/models", "Models"))
        await build_choice(context)
        return
    await NewModel(context).build()


class NewModel:
    """The form of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = ModelFormApi(context.api)

    async def build(self) -> None:
        """Draw it."""
        names, known, begun, gpus = await asyncio.gather(
            self._api.names(), self._api.fields(), self._beginning(), self._api.gpus()
        )
        with page_header(f"New {engine_name(begun.engine)} model", back=("/models/new", "Choose again")):
            button("Save as recipe", self._save_recipe, icon="o_library_add")
        if begun.entry is not None and not begun.entry.usable:
            empty_state(
                "o_block",
                "No model can be made of this",
                begun.entry.why,
                lambda: link_button("Choose another", "/models/new", kind="primary"),
            )
            return
        self._head(begun)
        draft = self._with_query(Draft.new(begun.engine, known.get(begun.engine, ()), begun.given))
        setup = Setup(
            draft,
            lambda one: self._api.dry_run_new(one.description()),
            taken=names,
            advice=lambda: advice_for(self._api, begun.entry),
            notes=notes_for(begun.entry, gpus),
            unfinished=Unfinished(self._context, f"new {begun.given.get('local_path') or begun.given.get('repo_id')}"),
        )
        self._form = ModelForm(setup, self._actions)
        self._form.build()

    async def _beginning(self) -> Beginning:
        query = self._context.query
        if "recipe" in query:
            return await self._of_recipe(query["recipe"])
        if "repo" in query:
            repo = query["repo"]
            name = repo.rpartition("/")[2]
            return Beginning(
                "vllm", {"name": name, "repo_id": repo}, "vLLM loads it from Hugging Face when it starts first."
            )
        path = query["path"]
        entry, names = await self._api.opening(path)
        if entry is None:
            raise ConsoleError(404, "file_not_found", f"{path} does not lie in the models folder.")
        engine = entry.engine or "llamacpp"
        return Beginning(engine, beginning(entry, {}, names), entry.why, entry)

    async def _of_recipe(self, recipe_id: str) -> Beginning:
        recipe = await self._api.recipe(recipe_id)
        why = f"From the recipe {recipe.name}."
        path = text(recipe.fields.get("local_path"))
        if not path:
            given = {**recipe.fields, "name": name_for(recipe.source, await self._api.names())}
            return Beginning(recipe.engine, given, why)
        entry, names = await self._api.opening(path)
        given = {**recipe.fields, "name": name_for(path, names)}
        return Beginning(recipe.engine, given, why, entry)

    def _with_query(self, draft: Draft) -> Draft:
        for name, typed in self._context.query.items():
            if name in draft.fields and name not in _NOT_FIELDS:
                draft = draft.typed(name, {"true": True, "false": False}.get(typed, typed))
        return draft

    def _head(self, begun: Beginning) -> None:
        source = text(begun.given.get("local_path")) or text(begun.given.get("repo_id"))
        with box("c-card mf-source"):
            engine_badge(begun.engine)
            with box("mf-source-text"):
                code(source)
                said = begun.entry.facts if begun.entry is not None else ""
                Text("div", " · ".join(part for part in (said, begun.why) if part), "c-hint")
            if begun.entry is not None and begun.entry.quality:
                badge(f"{begun.entry.quantization}: {begun.entry.quality}", dot=False)

    def _actions(self) -> None:
        button("Create", lambda: self._create(start=False))
        button("Create and start", lambda: self._create(start=True), icon="o_play_arrow", kind="primary")

    async def _create(self, *, start: bool) -> None:
        if not await self._form.ready():
            return
        try:
            made = await self._api.create(self._form.draft.description(), start=start)
        except ConsoleError as error:
            self._form.refuse(error)
            return
        self._form.forget()
        notify.done(f"{text(made.get('name'))} is {'starting' if start else 'made, stopped'}.")
        ui.navigate.to(f"/models/{text(made.get('id'))}")

    async def _save_recipe(self) -> None:
        await save_recipe(self._api, self._form.draft)


async def save_recipe(api: ModelFormApi, draft: Draft) -> None:
    """Ask for a name, and keep the settings under it."""

    async def submit(values: dict[str, Any]) -> None:
        await api.save_recipe(values["name"], values["description"] or "", draft.description())
        notify.done(f"The recipe {values['name']} is saved.")

    name = text(draft.values.get("name"))
    fields = (
        Field("name", "Name", value=name, required=True),
        Field("description", "Description", kind="long", hint="What it is for, who tried it."),
    )
    said = "Keeps all settings but names and secrets, to make further models of."
    await ask_form("Save as recipe", fields, "Save", submit, text=said)


async def advice_for(api: ModelFormApi, entry: LibraryEntry | None) -> tuple[Proposal, ...]:
    """What is recommended for the hosts, and what lies beside the file."""
    if entry is None:
        return ()
    told = await api.advised(entry.path)
    return (*proposals_of(told.get("settings")), *beside(entry))


def notes_for(entry: LibraryEntry | None, gpus: str) -> dict[str, str]:
    """Help that depends on the file and the hosts."""
    notes = {"placement": gpus}
    if entry is None:
        return notes
    if entry.context:
        notes["context_size"] = notes["max_model_len"] = f"The model was made for {entry.context:,}."
    if entry.mmproj:
        notes["mmproj_path"] = f"Fits: {', '.join(entry.mmproj[:2])}."
    if entry.drafts:
        notes["draft_model_path"] = f"Same tokenizer: {', '.join(entry.drafts[:2])}."
    return notes
