"""Recipes: settings to make models of."""

from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button, link_button
from cortex_console.components.dialogs import Question, confirm, dialog
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, heading, hint, labelled
from cortex_console.domain.form.draft import change_of
from cortex_console.domain.form.fields import FormField
from cortex_console.domain.recipes import Recipe
from cortex_console.domain.shapes import text
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_NAME_NOTE = """<span class="c-two"><span class="c-strong">{{ props.row.%s }}</span>
<span class="c-hint">{{ props.row.%s_note }}</span></span>"""
_COLUMNS = (
    table.Column("name", "Name", _NAME_NOTE, wide=True),
    table.Column("engine", "Engine", table.TAG),
    table.Column("task", "Task"),
    table.Column("source", "Made of", table.MONO, wide=True),
    table.Column("author", "By"),
    table.Column("updated", "Changed", table.TIME, sort_by="updated_sort"),
)


class RecipesPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = ModelFormApi(context.api)
        self._recipes: list[Recipe] = []
        self._why_not = context.why_not(Right.RECIPES_WRITE)

    async def build(self) -> None:
        """Draw it."""
        with page_header("Recipes", "Settings that worked, to make further models of."):
            if self._why_not is None:
                button("New from a model", self._from_model, icon="o_add", kind="primary")
        self._filters = box("c-filters").props('role="search"')
        with self._filters:
            self._search = ui.input(placeholder="Search").props('outlined dense clearable type="search" debounce="200"')
            labelled(self._search.classes("c-search"), "Search recipes")
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')
        self._search.on_value_change(self._show)
        self._empty = box("")
        self._table = table.Table("Recipes", _COLUMNS, on_act=self._act)
        await self._read()
        self._context.on_events(self._on_events)

    async def _read(self) -> None:
        self._recipes = await self._api.recipes()
        self._show()

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("recipe."):
            await self._read()

    def _show(self) -> None:
        wanted = self._search.value or ""
        shown = [one for one in self._recipes if one.matches(wanted)]
        now = datetime.now(UTC)
        self._table.show([one.table_row(now) | {"actions": self._acts()} for one in shown])
        every = len(self._recipes)
        word = "recipe" if every == 1 else "recipes"
        self._count.text = f"{every} {word}" if len(shown) == every else f"{len(shown)} of {every} {word}"
        self._table.element.visible = self._filters.visible = bool(every)
        self._empty.clear()
        if not every:
            with self._empty:
                self._show_empty()

    def _show_empty(self) -> None:
        said = "Save one in the form of a model, or make one from a model that does well."
        if self._why_not is not None:
            empty_state("o_library_books", "No recipes yet", "An administrator saves them.")
            return
        empty_state(
            "o_library_books",
            "No recipes yet",
            said,
            lambda: button("New from a model", self._from_model, icon="o_add", kind="primary"),
        )

    def _acts(self) -> list[dict[str, Any]]:
        make = self._context.why_not(Right.MODELS_WRITE)
        offered = [table.Act("show", "Settings", "o_list")]
        if self._why_not is None:
            offered = [
                table.Act("make", "Make a model", "o_add", make, first=True),
                *offered,
                table.Act("rename", "Rename", "o_edit"),
                table.Act("delete", "Delete", "o_delete", danger=True),
            ]
        return [one.cell() for one in offered]

    async def _act(self, key: str, act: str) -> None:
        one = next((recipe for recipe in self._recipes if recipe.id == key), None)
        if one is None:
            return
        match act:
            case "make":
                ui.navigate.to(f"/models/new?recipe={one.id}")
            case "rename":
                await self._rename(one)
            case "delete":
                await self._delete(one)
            case _:
                await self._show_settings(one)

    async def _rename(self, one: Recipe) -> None:
        async def submit(values: dict[str, Any]) -> None:
            await self._api.rename_recipe(one, values["name"], values["description"] or "")

        fields = (
            Field("name", "Name", value=one.name, required=True),
            Field("description", "Description", kind="long", value=one.description),
        )
        if await ask_form(f"Rename {one.name}", fields, "Save", submit):
            notify.done("Saved.")
            await self._read()

    async def _delete(self, one: Recipe) -> None:
        said = ("The settings are forgotten. This cannot be undone.", "Models that were made of it stay as they are.")
        if await confirm(Question(f"Delete {one.name}?", said, "Delete", danger=True)):
            await self._api.delete_recipe(one.id)
            notify.done(f"{one.name} is deleted.")
            await self._read()

    async def _show_settings(self, one: Recipe) -> None:
        known: dict[str, FormField] = {field.name: field for field in (await self._api.fields()).get(one.engine, ())}
        changes = [
            change_of(field, name, None, one.fields[name])
            for name, field in known.items()
            if name in one.fields and one.fields[name] != field.default
        ]
        with dialog(one.name) as made:
            heading(one.name, 2)
            if one.description:
                hint(one.description)
            with box("mf-diff-wrap"), box("mf-diff", "table"), box("", "tbody"):
                for change in changes:
                    with box("", "tr"):
                        Text("th", change.label).props('scope="row"')
                        Text("td", change.after)
            hint("Everything else is as the engine has it.")
            with box("c-dialog-foot"):
                button("Close", made.close, kind="quiet")
                if self._context.may(Right.MODELS_WRITE):
                    link_button("Make a model", f"/models/new?recipe={one.id}", kind="primary")
        await made
        made.delete()

    async def _from_model(self) -> None:
        answer = await self._context.api.get("/models")
        options = {
            text(one.get("id")): text(one.get("name")) for one in answer.get("items") or () if not one.get("external")
        }
        if not options:
            notify.tell("There is no model yet to make a recipe from.")
            return

        async def submit(values: dict[str, Any]) -> None:
            await self._api.recipe_from_model(values["model"], values["name"], values["description"] or "")

        fields = (
            Field("model", "Model", kind="choice", value=next(iter(options)), options=options, required=True),
            Field("name", "Name of the recipe", required=True),
            Field("description", "Description", kind="long"),
        )
        said = "Every setting but names and secrets is kept."
        if await ask_form("New recipe from a model", fields, "Save", submit, text=said):
            notify.done("The recipe is saved.")
            await self._read()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await RecipesPage(context).build()


RECIPES = Page("/recipes", "Recipes", build, Right.RECIPES_READ, icon="o_library_books", group="Serve")
