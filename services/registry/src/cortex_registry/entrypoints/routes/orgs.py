"""Routes of organisations."""

from fastapi import APIRouter, Response

from cortex_contracts.rights import Right
from cortex_registry.domain.users import Org, OrgPatch, OrgSpecification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.identity_paging import Ids, PageOf, SearchText, next_after
from cortex_registry.entrypoints.schemas.identity import Named, NamedList, OrgAnswer, OrgList
from cortex_registry.handlers.identity_users import OrgService


class OrgRoutes:
    """/admin/orgs."""

    def __init__(self, service: OrgService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("orgs")
        routes.add("GET", "/orgs", self.page, Right.USERS_READ)
        routes.add("POST", "/orgs", self.create, Right.USERS_WRITE, status_code=201)
        routes.add("GET", "/orgs/lookup", self.lookup, Right.USERS_READ)
        routes.add("GET", "/orgs/{org_id}", self.get, Right.USERS_READ)
        routes.add("PATCH", "/orgs/{org_id}", self.update, Right.USERS_WRITE)
        routes.add("DELETE", "/orgs/{org_id}", self.delete, Right.USERS_WRITE, status_code=204)
        return routes.router

    async def page(self, page: PageOf, q: SearchText = None) -> OrgList:
        """Organisations, oldest first. `q` is part of a name."""
        found = await self._service.page(q, page)
        return OrgList(items=[OrgAnswer.of(org) for org in found], next=next_after(found, page))

    async def create(self, body: OrgSpecification, caller: CallerOf, response: Response) -> OrgAnswer:
        """Make an organisation."""
        return _shown(await self._service.create(body, caller), response)

    async def lookup(self, page: PageOf, q: SearchText = None, ids: Ids = None) -> NamedList:
        """Ids and names only: of the given ids, or of those whose name holds `q`."""
        found = await (self._service.find_many([str(one) for one in ids]) if ids else self._service.page(q, page))
        return NamedList(items=[Named(id=org.id, name=org.name) for org in found])

    async def get(self, org_id: str, response: Response) -> OrgAnswer:
        """One organisation, and how many users belong to it."""
        return _shown(await self._service.get(org_id), response)

    async def update(
        self, org_id: str, body: OrgPatch, caller: CallerOf, response: Response, expected: IfMatch
    ) -> OrgAnswer:
        """Rename an organisation."""
        return _shown(await self._service.update(org_id, body, caller, expected), response)

    async def delete(self, org_id: str, caller: CallerOf, expected: IfMatch) -> None:
        """Delete an organisation; a 409 says how many users and API keys belong to it."""
        await self._service.delete(org_id, caller, expected)


def _shown(org: Org, response: Response) -> OrgAnswer:
    show_version(response, org.version)
    return OrgAnswer.of(org)
