"""Making, changing, rotating and revoking keys."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cortex_console.adapters.keys_api import KeysApi
from cortex_console.components import notify, table
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.page import PageContext
from cortex_console.components.secret import show_secret
from cortex_console.domain.api_keys import OVERLAPS, ApiKey, Names, body_of, changes_of, own_body_of, revocation
from cortex_console.domain.shapes import Row, text
from cortex_console.pages.keys.form import fields_of
from cortex_contracts.rights import Right

_GIVE = "Put it where the program reads its settings. Whoever has it may use what it opens."


class KeyActs:
    """Each act answers whether something changed."""

    def __init__(
        self,
        context: PageContext,
        api: KeysApi,
        names: Names,
        models: Mapping[str, str],
        *,
        everybody: bool,
    ) -> None:
        self._context = context
        self._api = api
        self._names = names
        self._models = models
        self._everybody = everybody

    def offered(self, key: ApiKey) -> list[dict[str, Any]]:
        """What a row offers, and why not."""
        writes = self._context.why_not(Right.KEYS_WRITE) if self._everybody else None
        limited = self._context.why_not(Right.KEYS_WRITE) if not self._everybody else writes
        gone = "It is revoked." if key.state == "revoked" else None
        idle = None if key.works else f"It is {key.state}: only an active key is rotated."
        toggle = ("enable", "Enable", "o_lock_open") if key.state == "disabled" else ("disable", "Disable", "o_block")
        acts = [
            table.Act("edit", "Edit" if self._everybody else "Rename", "o_edit", writes or gone, first=True),
            table.Act("usage", "Usage", "o_bar_chart"),
            table.Act("rotate", "Rotate", "o_autorenew", writes or idle),
            table.Act("revoke", "Revoke", "o_delete", writes or gone, danger=True),
        ]
        if self._everybody:
            acts.insert(3, table.Act(*toggle, limited or gone))
        return [act.cell() for act in acts]

    async def create(self) -> bool:
        """Ask for a new key, and show it once."""
        made: Row = {}

        async def submit(values: Values) -> None:
            nonlocal made
            body = body_of(values) if self._everybody else own_body_of(values)
            made = await self._api.create(body)

        fields = fields_of(None, self._models, self._names if self._everybody else None)
        said = "" if self._everybody else "What you leave open gets what this installation allows."
        if not await ask_form("New API key", fields, "Make key", submit, text=said):
            return False
        await show_secret(f"Key {text(made.get('name'))}", _GIVE, text(made.get("key")), label="API key")
        return True

    async def edit(self, key: ApiKey) -> bool:
        """Change it; of their own keys people change the name alone."""
        names = self._names if self._everybody else None
        fields = fields_of(key, self._models, names)
        if not self._everybody:
            fields = [Field("name", "Name", value=key.name, required=True)]

        async def submit(values: Values) -> None:
            changes = changes_of(key, values) if self._everybody else {"name": values["name"]}
            if changes:
                await self._api.change(key, changes)
            notify.done(f"{values['name']} is changed. Gateways follow within moments.")

        return await ask_form(f"Edit {key.name}" if self._everybody else f"Rename {key.name}", fields, "Save", submit)

    async def rotate(self, key: ApiKey) -> bool:
        """A new key in its place, shown once."""
        made: Row = {}

        async def submit(values: Values) -> None:
            nonlocal made
            made = await self._api.rotate(key, int(values["overlap_s"]))

        field = Field("overlap_s", "The old key stops", "choice", 86_400, "Until then both work.", OVERLAPS)
        said = "A new key with the same settings takes its place."
        if not await ask_form(f"Rotate {key.name}", [field], "Rotate", submit, text=said):
            return False
        await show_secret(f"New key {key.name}", _GIVE, text(made.get("key")), label="API key")
        return True

    async def disable(self, key: ApiKey) -> bool:
        """Until it is enabled again."""
        told = ("Programs that use it are refused within moments.", "It can be enabled again, unchanged.")
        if not await confirm(Question(f"Disable {key.name}?", told, "Disable", danger=True)):
            return False
        await self._api.change(key, {"disabled": True})
        notify.done(f"{key.name} is disabled.")
        return True

    async def enable(self, key: ApiKey) -> bool:
        """It opens again what it did."""
        await self._api.change(key, {"disabled": False})
        notify.done(f"{key.name} works again.")
        return True

    async def revoke(self, key: ApiKey) -> bool:
        """For ever."""
        question = Question(f"Revoke {key.name}?", revocation(key, datetime.now(UTC)), "Revoke", danger=True)
        if not await confirm(question):
            return False
        await self._api.revoke(key)
        notify.done(f"{key.name} is revoked.")
        return True

    async def show_usage(self, key: ApiKey) -> bool:
        """On the page of usage."""
        ui.navigate.to(f"/usage?key={key.id}&range=30d")
        return False
