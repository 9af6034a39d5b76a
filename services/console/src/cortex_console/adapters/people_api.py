"""Users, organisations, one's own account and the audit log by the admin API. Every method raises ConsoleError."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cortex_console.domain.people import Organisation, User
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.ports import AdminCalls, Query

T = TypeVar("T")
PAGE = 100
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """A part of a long list; `next` is where the following part begins, None at the end."""

    items: list[T]
    next: str | None


class PeopleApi:
    """Users and organisations."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def users(self, query: Query, after: str | None = None) -> Slice[User]:
        """The oldest first."""
        answer = await self._calls.get("/users", {**query, "limit": PAGE, "after": after})
        return Slice([User.of(one) for one in rows(answer.get("items"))], _next(answer))

    async def create_user(self, values: Row) -> Row:
        """A new user, with `one_time_password`."""
        return await self._calls.post("/users", values)

    async def update_user(self, user: User, changes: Row) -> None:
        """Change what is given, unless somebody else did meanwhile."""
        await self._calls.patch(f"/users/{user.id}", changes, version=user.version)

    async def reset_password(self, user: User) -> str:
        """A new one-time password."""
        return text((await self._calls.post(f"/users/{user.id}/reset-password")).get("one_time_password"))

    async def delete_user(self, user: User) -> None:
        """Forget them."""
        await self._calls.delete(f"/users/{user.id}")

    async def organisations(self, query: Query, after: str | None = None) -> Slice[Organisation]:
        """The oldest first."""
        answer = await self._calls.get("/orgs", {**query, "limit": PAGE, "after": after})
        return Slice([Organisation.of(one) for one in rows(answer.get("items"))], _next(answer))

    async def organisation_names(self) -> dict[str, str]:
        """Names by id, a thousand at most."""
        answer = await self._calls.get("/orgs/lookup", {"limit": _MOST})
        return {text(one.get("id")): text(one.get("name")) for one in rows(answer.get("items"))}

    async def create_organisation(self, name: str) -> None:
        """A new one."""
        await self._calls.post("/orgs", {"name": name})

    async def rename_organisation(self, organisation: Organisation, name: str) -> None:
        """Unless somebody else did meanwhile."""
        await self._calls.patch(f"/orgs/{organisation.id}", {"name": name}, version=organisation.version)

    async def delete_organisation(self, organisation: Organisation) -> None:
        """Only an empty one."""
        await self._calls.delete(f"/orgs/{organisation.id}")


class AccountApi:
    """What is one's own."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def sessions(self) -> list[Row]:
        """The newest first."""
        return rows((await self._calls.get("/auth/sessions")).get("items"))

    async def end_session(self, session_id: str) -> None:
        """That browser has to sign in again."""
        await self._calls.delete(f"/auth/sessions/{session_id}")

    async def end_other_sessions(self) -> int:
        """All but this one; how many."""
        return int((await self._calls.delete("/auth/sessions")).get("ended") or 0)

    async def tokens(self) -> list[Row]:
        """Personal tokens."""
        return rows((await self._calls.get("/me/tokens")).get("items"))

    async def create_token(self, values: dict[str, Any]) -> str:
        """The token itself, shown once."""
        return text((await self._calls.post("/me/tokens", values)).get("token"))

    async def revoke_token(self, token_id: str) -> None:
        """For ever."""
        await self._calls.delete(f"/me/tokens/{token_id}")


class AuditApi:
    """Who did what."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def entries(self, query: Query, after: str | None = None) -> Slice[Row]:
        """The newest first."""
        answer = await self._calls.get("/audit", {**query, "limit": PAGE, "after": after})
        return Slice(rows(answer.get("items")), _next(answer))


def _next(answer: Row) -> str | None:
    value = answer.get("next")
    return None if value is None else str(value)
