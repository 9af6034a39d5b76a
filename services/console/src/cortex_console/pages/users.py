"""Users: who may sign in, with which role."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cortex_console.adapters.people_api import PeopleApi
from cortex_console.components import notify, table
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.filters import choice, search_field
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.paging import Paging
from cortex_console.components.secret import show_secret
from cortex_console.components.text import Text, box
from cortex_console.domain.people import ROLE_MEANS, ROLES, User, user_row, why_not_touch
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_COLUMNS = (
    table.Column("user", "User", table.NAMED, wide=True),
    table.Column("role", "Role", table.TAG, sort_by="role_kind"),
    table.Column("organisation", "Organisation"),
    table.Column("state", "State", table.BADGE),
    table.Column("signed_in", "Signed in", table.TIME, sort_by="signed_in_sort"),
    table.Column("created", "Made", table.TIME, sort_by="created_sort"),
)
_STATES = {"false": "Enabled", "true": "Disabled"}
_ROLES_HINT = ". ".join(f"{ROLES[role]}: {means}" for role, means in ROLE_MEANS.items()) + "."
_ONE_TIME = (
    "Give it to {name} by a way that others do not read. At the first sign-in they choose a password of their own."
)


class UsersPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = PeopleApi(context.api)
        self._known: dict[str, User] = {}
        self._organisations: Mapping[str, str] = {}

    async def build(self) -> None:
        """Draw it."""
        self._organisations = await self._api.organisation_names()
        why_not = self._context.why_not(Right.USERS_WRITE)
        with page_header("Users", "Who may sign in here, and what they may do."):
            button("New user", self._create, icon="o_person_add", kind="primary", why_not=why_not)
        with box("c-filters").props('role="search"'):
            self._search = search_field("Search users", self._changed)
            self._role = choice("Role", ROLES, self._changed)
            wanted = self._context.query.get("org", "")
            self._org = choice("Organisation", self._organisations, self._changed, value=wanted)
            self._disabled = choice("State", _STATES, self._changed)
            box("c-spring")
            count = Text("span", "", "c-hint").props('role="status"')
        listed = table.Table("Users", _COLUMNS, on_act=self._act, page_size=0)
        self._paging = Paging(listed, self._read, noun="user", count=count)
        await self._changed()
        self._context.on_events(self._on_events)

    async def _on_events(self, batch: Batch) -> None:
        if batch.has("org."):
            self._organisations = await self._api.organisation_names()
        if batch.has("org.", "user."):
            await self._paging.reload()

    async def _changed(self) -> None:
        await self._paging.first()

    async def _read(self, after: str | None) -> tuple[Sequence[dict[str, object]], str | None]:
        query = {
            "q": (self._search.value or "").strip() or None,
            "role": self._role.value or None,
            "org_id": self._org.value or None,
            "disabled": self._disabled.value or None,
        }
        found = await self._api.users(query, after)
        self._known |= {user.id: user for user in found.items}
        now = datetime.now(UTC)
        shown = [user_row(user, self._organisations, now) | {"actions": self._acts(user)} for user in found.items]
        return shown, found.next

    def _acts(self, user: User) -> list[dict[str, object]]:
        writes = self._context.why_not(Right.USERS_WRITE)
        touches = why_not_touch(user, self._context.me)
        toggle = ("enable", "Enable", "o_lock_open") if user.disabled else ("disable", "Disable", "o_block")
        return [
            table.Act("edit", "Edit", "o_edit", writes, first=True).cell(),
            table.Act("reset", "New one-time password", "o_key", touches).cell(),
            table.Act(*toggle, touches).cell(),
            table.Act("delete", "Delete", "o_delete", touches, danger=True).cell(),
        ]

    def _fields(self, user: User | None) -> list[Field]:
        orgs = {"": "None"} | dict(self._organisations)
        mine = user is not None and user.id == self._context.me.user_id
        first = next(iter(self._organisations), "") if len(self._organisations) == 1 else ""
        username, shown = (user.username, user.display_name) if user else ("", "")
        fields = [
            Field("username", "User name", value=username, required=True, hint="Letters, digits and . _ - @ +"),
            Field("display_name", "Display name", value=shown, hint="Optional"),
            Field("role", "Role", "choice", user.role if user else "viewer", _ROLES_HINT, ROLES),
            Field("org_id", "Organisation", "choice", user.org_id if user else first, "", orgs),
        ]
        return [one for one in fields if not (mine and one.name == "role")]

    async def _create(self) -> None:
        made: dict[str, str] = {}

        async def submit(values: Values) -> None:
            answer = await self._api.create_user(values | {"org_id": values["org_id"] or None})
            made.update(name=values["username"], password=str(answer.get("one_time_password")))

        if await ask_form("New user", self._fields(None), "Make", submit):
            await self._paging.reload()
            await self._tell_password(made["name"], made["password"])

    async def _tell_password(self, name: str, password: str) -> None:
        title, text = f"One-time password of {name}", _ONE_TIME.format(name=name)
        await show_secret(title, text, password, label="One-time password")

    async def _act(self, key: str, act: str) -> None:
        user = self._known.get(key)
        if user is None:
            return
        acts: dict[str, Callable[[User], Coroutine[Any, Any, None]]] = {
            "edit": self._edit,
            "reset": self._reset,
            "enable": self._enable,
            "disable": self._disable,
            "delete": self._delete,
        }
        await acts[act](user)

    async def _edit(self, user: User) -> None:
        async def submit(values: Values) -> None:
            await self._api.update_user(user, values | {"org_id": values["org_id"] or None})
            notify.done(f"{values['username']} is changed.")

        text = "Another role ends their sessions: they sign in again."
        if await ask_form(f"Edit {user.username}", self._fields(user), "Save", submit, text=text):
            await self._paging.reload()

    async def _reset(self, user: User) -> None:
        told = (
            "Their password stops working, and all their sessions end.",
            "You get a new one-time password for them.",
        )
        if await confirm(Question(f"New password for {user.username}?", told, "Make one-time password")):
            password = await self._api.reset_password(user)
            await self._paging.reload()
            await self._tell_password(user.username, password)

    async def _enable(self, user: User) -> None:
        await self._api.update_user(user, {"disabled": False})
        notify.done(f"{user.username} may sign in again.")
        await self._paging.reload()

    async def _disable(self, user: User) -> None:
        told = (
            "All their sessions end, their personal tokens stop working, and they cannot sign in.",
            "Their API keys go on working: revoke those at API keys.",
            "It can be undone.",
        )
        if await confirm(Question(f"Disable {user.username}?", told, "Disable", danger=True)):
            await self._api.update_user(user, {"disabled": True})
            notify.done(f"{user.username} is disabled.")
            await self._paging.reload()

    async def _delete(self, user: User) -> None:
        told = (
            f"{user.username} is forgotten, with sessions and personal tokens. This cannot be undone.",
            "The registry refuses it while API keys of theirs work.",
            "Usage and audit entries of theirs stay.",
        )
        question = Question(f"Delete {user.username}?", told, "Delete", danger=True, type_to_confirm=user.username)
        if await confirm(question):
            await self._api.delete_user(user)
            notify.done(f"{user.username} is deleted.")
            await self._paging.reload()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await UsersPage(context).build()


USERS = Page("/users", "Users", build, Right.USERS_READ, icon="o_group", group="Access")
