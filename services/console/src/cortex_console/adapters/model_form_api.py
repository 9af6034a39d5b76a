"""What the form of a model, the calculator and recipes ask of the admin API."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cortex_console.domain.form.fields import FormField
from cortex_console.domain.form.library import LibraryEntry
from cortex_console.domain.form.memory import Estimate, Outlook
from cortex_console.domain.form.revisions import Revision
from cortex_console.domain.recipes import Recipe
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.errors import ConsoleError
from cortex_console.ports import AdminCalls

_PAGE = 500
_MOST_ENTRIES = 5_000
_RECIPES = 1000


class ModelFormApi:
    """Every method raises ConsoleError."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def fields(self) -> dict[str, tuple[FormField, ...]]:
        """Fields of each engine that new models may have."""
        answer = await self._calls.get("/capabilities")
        return {
            text(engine.get("engine_type")): tuple(FormField.of(one) for one in rows(engine.get("fields")))
            for engine in rows(answer.get("engines"))
        }

    async def engines_off(self) -> dict[str, str]:
        """Engines that new models may not have, with the reason."""
        answer = await self._calls.get("/capabilities")
        return {
            text(engine.get("engine_type")): text(engine.get("reason"))
            for engine in rows(answer.get("engines"))
            if not engine.get("enabled")
        }

    async def library(self, *, refresh: bool = False) -> tuple[list[LibraryEntry], Row]:
        """What lies in the models folder, and the last page's own words about it.

        The inspector looks there every few seconds; `refresh` makes it look now, and so does an empty folder, as somebody who
        looks for a file has just put it there.
        """
        found: list[LibraryEntry] = []
        while True:
            query = {"limit": _PAGE, "offset": len(found), "refresh": "true" if refresh and not found else None}
            page = await self._calls.get("/gguf/scan", query)
            entries = [LibraryEntry.of(one) for one in rows(page.get("entries"))]
            found += entries
            if not found and not refresh:
                return await self.library(refresh=True)
            if not entries or len(found) >= min(int(page.get("total") or 0), _MOST_ENTRIES):
                return found, page

    async def folder(self) -> str:
        """Where the models folder is."""
        return text((await self._calls.get("/models/base-dir")).get("base_dir"))

    async def entry(self, path: str) -> LibraryEntry | None:
        """One entry of the library; None when nothing lies there."""
        folder = path.rpartition("/")[0] or "."
        query = {"path": path if not path.endswith(".gguf") else folder}
        for refresh in (None, "true"):  # the last look may be older than the file
            try:
                page = await self._calls.get("/gguf/scan", query | {"refresh": refresh})
            except ConsoleError as error:
                if error.status in (404, 422):
                    return None
                raise
            found = (LibraryEntry.of(one) for one in rows(page.get("entries")))
            entry = next((one for one in found if one.path == path), None)
            if entry is not None:
                return entry
        return None

    async def names(self) -> dict[str, str]:
        """Every name that clients may ask for, in lower case, and the id of the model that has it."""
        answer = await self._calls.get("/models", {"archived": "true"})
        taken: dict[str, str] = {}
        for model in rows(answer.get("items")):
            for name in (model.get("served_model_name"), *(model.get("aliases") or ())):
                taken[text(name).lower()] = text(model.get("id"))
        return taken

    async def model(self, reference: str) -> Row:
        """One model, flat."""
        return await self._calls.get(f"/models/{quote(reference, safe='')}")

    async def recommend(self, path: str, more: Mapping[str, Any] | None = None) -> Row:
        """How to serve a file."""
        return await self._calls.post("/gguf/recommend", {"path": path, **(more or {})})

    async def estimate(self, request: Mapping[str, Any]) -> Estimate:
        """Memory of a file with options."""
        return Estimate.of(await self._calls.post("/gguf/estimate", dict(request)))

    async def dry_run_new(self, description: Mapping[str, Any]) -> Outlook:
        """What would become of a new model."""
        return Outlook.of(await self._calls.post("/models/dry-run", dict(description)))

    async def dry_run_changed(self, model_id: str, patch: Mapping[str, Any]) -> Outlook:
        """What would become of a model after a patch."""
        return Outlook.of(await self._calls.post(f"/models/{model_id}/dry-run", dict(patch)))

    async def create(self, description: Mapping[str, Any], *, start: bool) -> Row:
        """Make a model, and ask it to run."""
        made = await self._calls.post("/models", dict(description))
        return await self.start(text(made.get("id"))) if start else made

    async def start(self, model_id: str) -> Row:
        """Ask it to run."""
        return await self._calls.post(f"/models/{model_id}/start")

    async def change(self, model_id: str, patch: Mapping[str, Any], version: int) -> Row:
        """Change a model unless somebody else did meanwhile (412 `precondition_failed`)."""
        return await self._calls.patch(f"/models/{model_id}", dict(patch), version=version)

    async def revisions(self, model_id: str) -> list[Revision]:
        """The newest hundred versions, newest first."""
        answer = await self._calls.get(f"/models/{model_id}/revisions", {"limit": 100})
        return [Revision.of(one) for one in rows(answer.get("items"))]

    async def compare(self, model_id: str, before: int, after: int | None = None) -> Row:
        """What differs between two versions; the newest when `after` is left out."""
        return await self._calls.get(f"/models/{model_id}/revisions/diff", {"from": before, "to": after})

    async def roll_back(self, model_id: str, to: int, version: int) -> Row:
        """A new version like an old one, unless somebody changed the model meanwhile."""
        return await self._calls.post(f"/models/{model_id}/rollback", {"version": to}, version=version)

    async def recipes(self) -> list[Recipe]:
        """All of them, by name."""
        found: list[Recipe] = []
        after = None
        while True:
            answer = await self._calls.get("/recipes", {"limit": _RECIPES, "after": after})
            found += [Recipe.of(one) for one in rows(answer.get("items"))]
            after = answer.get("next")
            if after is None:
                return sorted(found, key=lambda one: one.name.lower())

    async def recipe(self, recipe_id: str) -> Recipe:
        """One recipe."""
        return Recipe.of(await self._calls.get(f"/recipes/{quote(recipe_id, safe='')}"))

    async def save_recipe(self, name: str, description: str, fields: Mapping[str, Any]) -> Row:
        """Keep a configuration."""
        left_out = ("name", "served_model_name", "aliases", "hf_token")
        kept = {key: value for key, value in fields.items() if key not in left_out}
        return await self._calls.post("/recipes", {"name": name, "description": description, "fields": kept})

    async def recipe_from_model(self, model_id: str, name: str, description: str) -> Row:
        """Keep a model's configuration."""
        body = {"name": name, "description": description}
        return await self._calls.post(f"/recipes/from-model/{model_id}", body)

    async def rename_recipe(self, recipe: Recipe, name: str, description: str) -> Row:
        """Change name and description."""
        body = {"name": name, "description": description}
        return await self._calls.patch(f"/recipes/{recipe.id}", body, version=recipe.version)

    async def delete_recipe(self, recipe_id: str) -> None:
        """Forget it; models made of it stay."""
        await self._calls.delete(f"/recipes/{recipe_id}")

    async def hardware(self) -> Sequence[Row]:
        """The hosts, with memory and GPUs."""
        return rows((await self._calls.get("/nodes")).get("items"))

    async def gpus(self) -> str:
        """The GPUs of all hosts, in a sentence."""
        found: list[str] = []
        for node in await self.hardware():
            gpus = rows(node.get("gpus"))
            if gpus:
                indices = ", ".join(text(gpu.get("index")) for gpu in gpus)
                found.append(f"{text(node.get('hostname'))} has {indices}")
        return f"{'; '.join(found)}." if found else "No host has a GPU."

    async def advised(self, path: str) -> Row:
        """Settings that are recommended for a file; nothing where there is no advice."""
        try:
            return await self.recommend(path)
        except ConsoleError as error:
            if error.is_signed_out:
                raise
            return {}

    async def opening(self, path: str) -> tuple[LibraryEntry | None, dict[str, str]]:
        """What a form begins with: the entry, and the names that are taken; an empty path is of a repository."""
        if not path:
            return None, await self.names()
        return await asyncio.gather(self.entry(path), self.names())
