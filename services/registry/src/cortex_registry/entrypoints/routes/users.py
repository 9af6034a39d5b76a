"""Routes of users."""

import uuid

from fastapi import APIRouter, Response

from cortex_contracts.rights import Right, Role
from cortex_registry.domain.users import User, UserPatch, UserSpecification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.identity_paging import Ids, PageOf, SearchText, next_after
from cortex_registry.entrypoints.schemas.identity import Named, NamedList, NewUserAnswer, UserAnswer, UserList
from cortex_registry.handlers.identity_ports import UserFilter
from cortex_registry.handlers.identity_users import UserService


class UserRoutes:
    """/admin/users."""

    def __init__(self, service: UserService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("users")
        routes.add("GET", "/users", self.page, Right.USERS_READ)
        routes.add("POST", "/users", self.create, Right.USERS_WRITE, status_code=201)
        routes.add("GET", "/users/lookup", self.lookup, Right.USERS_READ)
        routes.add("GET", "/users/{user_id}", self.get, Right.USERS_READ)
        routes.add("PATCH", "/users/{user_id}", self.update, Right.USERS_WRITE)
        routes.add("DELETE", "/users/{user_id}", self.delete, Right.USERS_WRITE, status_code=204)
        routes.add("POST", "/users/{user_id}/reset-password", self.reset_password, Right.USERS_WRITE)
        return routes.router

    async def page(
        self,
        page: PageOf,
        q: SearchText = None,
        role: Role | None = None,
        org_id: uuid.UUID | None = None,
        disabled: bool | None = None,
    ) -> UserList:
        """Users, oldest first. `q` is part of a user name or display name."""
        found = await self._service.page(
            UserFilter(q, role, str(org_id) if org_id is not None else None, disabled), page
        )
        return UserList(items=[UserAnswer.of(user) for user in found], next=next_after(found, page))

    async def create(self, body: UserSpecification, caller: CallerOf, response: Response) -> NewUserAnswer:
        """Make a user. `one_time_password` is shown here and never again; it must be changed at the first sign-in."""
        user, password = await self._service.create(body, caller)
        return _with_password(user, password, response)

    async def lookup(self, page: PageOf, q: SearchText = None, ids: Ids = None) -> NamedList:
        """Ids and names only: of the given ids, or of those whose name holds `q`."""
        found = await (
            self._service.find_many([str(one) for one in ids]) if ids else self._service.page(UserFilter(q), page)
        )
        return NamedList(items=[Named(id=user.id, name=user.username) for user in found])

    async def get(self, user_id: str, response: Response) -> UserAnswer:
        """One user."""
        return _shown(await self._service.get(user_id), response)

    async def update(
        self, user_id: str, body: UserPatch, caller: CallerOf, response: Response, expected: IfMatch
    ) -> UserAnswer:
        """Change what is given. Disabling a user or changing their role ends their sessions.

        Nobody can disable or demote themselves, nor the last enabled administrator.
        """
        return _shown(await self._service.update(user_id, body, caller, expected), response)

    async def delete(self, user_id: str, caller: CallerOf, expected: IfMatch) -> None:
        """Delete a user with their sessions and personal tokens. Refused while API keys of theirs work."""
        await self._service.delete(user_id, caller, expected)

    async def reset_password(
        self, user_id: str, caller: CallerOf, response: Response, expected: IfMatch
    ) -> NewUserAnswer:
        """Give a user a new one-time password, shown here and never again; ends their sessions."""
        user, password = await self._service.reset_password(user_id, caller, expected)
        return _with_password(user, password, response)


def _shown(user: User, response: Response) -> UserAnswer:
    show_version(response, user.version)
    return UserAnswer.of(user)


def _with_password(user: User, password: str, response: Response) -> NewUserAnswer:
    show_version(response, user.version)
    response.headers["Cache-Control"] = "no-store"
    return NewUserAnswer.made(user, password)
