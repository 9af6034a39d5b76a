"""Routes of API keys."""

from fastapi import APIRouter, Response

from cortex_contracts.base import KeyId
from cortex_registry.domain.identity import Right
from cortex_registry.domain.keys import KeySpecification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.schemas.keys import KeyAnswer, KeyList, NewKeyAnswer, key_fields
from cortex_registry.handlers.keys import KeyService


class KeyRoutes:
    """/admin/keys."""

    def __init__(self, service: KeyService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("keys")
        routes.add("POST", "/keys", self.create, Right.KEYS_WRITE, status_code=201)
        routes.add("GET", "/keys", self.list_all, Right.KEYS_READ)
        routes.add("DELETE", "/keys/{key_id}", self.revoke, Right.KEYS_WRITE, status_code=204)
        return routes.router

    async def create(self, specification: KeySpecification, caller: CallerOf, response: Response) -> NewKeyAnswer:
        """Make a key. `key` is shown here and never again."""
        key, plain = await self._service.create(specification, caller)
        response.headers["Cache-Control"] = "no-store"
        return NewKeyAnswer(**key_fields(key), key=plain)

    async def list_all(self) -> KeyList:
        """Every key, revoked ones included, oldest first."""
        return KeyList(items=[KeyAnswer(**key_fields(key)) for key in await self._service.list_all()])

    async def revoke(self, key_id: str, caller: CallerOf) -> None:
        """Revoke a key for ever."""
        await self._service.revoke(KeyId(key_id), caller)
