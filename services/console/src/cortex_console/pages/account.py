"""One's own account: sessions and personal tokens."""

import asyncio
from datetime import UTC, datetime, timedelta

from cortex_console.adapters.people_api import AccountApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button, link_button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.secret import show_secret
from cortex_console.components.text import Text, box, card, heading
from cortex_console.domain.people import ROLES, role_text, session_row, token_row
from cortex_contracts.rights import Right

_SESSIONS = (
    table.Column("browser", "Browser", table.NAMED, wide=True),
    table.Column("address", "From", table.MONO),
    table.Column("seen", "Last seen", table.TIME, sort_by="seen_sort"),
    table.Column("begun", "Signed in", table.TIME, sort_by="begun_sort"),
)
_TOKENS = (
    table.Column("token", "Token", table.NAMED, wide=True),
    table.Column("role", "Role", table.TAG, sort_by="role"),
    table.Column("used", "Used", table.TIME, sort_by="used_sort"),
    table.Column("expires", "Ends"),
    table.Column("made", "Made", table.TIME, sort_by="made_sort"),
)
_ENDS = {30: "30 days", 90: "90 days", 365: "1 year", 0: "Never"}
_USE = "Programs send it to the admin API as a bearer token; cortex login asks for it."


class AccountPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = AccountApi(context.api)
        self._names: dict[str, str] = {}

    async def build(self) -> None:
        """Draw it."""
        me = self._context.me
        with page_header("Your account", f"{me.username}, {ROLES.get(me.role, me.role).lower()}"):
            link_button("Change password", "/change-password", icon="o_password")
            link_button("My API keys", "/keys", icon="o_key")
        Text("p", role_text(me.role), "c-hint")
        with card():
            with box("c-line"):
                heading("Where you are signed in")
                box("c-spring")
                button("Sign out everywhere else", self._end_others, icon="o_logout")
            self._sessions = table.Table("Sessions", _SESSIONS, on_act=self._act_session)
        with card():
            with box("c-line"):
                heading("Personal tokens")
                box("c-spring")
                button("New token", self._create, icon="o_add", kind="primary")
            Text(
                "p",
                "For the cortex command and scripts that administer. Models are called with API keys instead.",
                "c-hint",
            )
            self._tokens = table.Table("Personal tokens", _TOKENS, on_act=self._act_token)
        await self._read()

    async def _read(self) -> None:
        sessions, tokens = await asyncio.gather(self._api.sessions(), self._api.tokens())
        now = datetime.now(UTC)
        end = table.Act("end", "Sign out", "o_logout", first=True).cell()
        revoke = table.Act("revoke", "Revoke", "o_delete", first=True).cell()
        shown = [session_row(one, now) for one in sessions]
        self._sessions.show([one | {"actions": [] if one["current"] else [end]} for one in shown])
        listed = [token_row(one, now) for one in tokens]
        self._names = {str(one["id"]): str(one["row_name"]) for one in listed}
        self._tokens.show([one | {"actions": [revoke]} for one in listed])
        self._tokens.element.visible = bool(listed)

    async def _act_session(self, key: str, act: str) -> None:
        await self._api.end_session(key)
        notify.done("That browser has to sign in again.")
        await self._read()

    async def _end_others(self) -> None:
        told = ("Every other browser that is signed in as you has to sign in again.", "This one stays.")
        if await confirm(Question("Sign out everywhere else?", told, "Sign out")):
            ended = await self._api.end_other_sessions()
            notify.done(f"{ended} session{'s' * (ended != 1)} ended.")
            await self._read()

    async def _create(self) -> None:
        made: list[str] = []

        async def submit(values: Values) -> None:
            days = int(values["ends"])
            ends = (datetime.now(UTC) + timedelta(days=days)).isoformat() if days else None
            body = {"name": values["name"], "role": values["role"], "expires_at": ends}
            made.append(await self._api.create_token(body))

        own = list(ROLES)[: list(ROLES).index(self._context.me.role) + 1] if self._context.me.role in ROLES else []
        fields = [
            Field("name", "Name", required=True, hint="What it is for, like nightly backup"),
            Field("role", "Role", "choice", self._context.me.role, "No more than this, and never more than you may yourself",
                  {role: ROLES[role] for role in own}),
            Field("ends", "Ends after", "choice", 90, options=_ENDS),
        ]  # fmt: skip
        if await ask_form("New token", fields, "Make", submit):
            await self._read()
            await show_secret("Your new token", _USE, made[-1], label="Token")

    async def _act_token(self, key: str, act: str) -> None:
        name = self._names.get(key, "this token")
        told = ("Programs that use it are refused from now on. This cannot be undone.",)
        if await confirm(Question(f"Revoke {name}?", told, "Revoke", danger=True)):
            await self._api.revoke_token(key)
            notify.done(f"{name} is revoked.")
            await self._read()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await AccountPage(context).build()


ACCOUNT = Page("/account", "Your account", build, Right.SELF)
