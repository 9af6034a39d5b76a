"""Routes of API keys."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from cortex_contracts.base import KeyId
from cortex_contracts.rights import Right
from cortex_kit.clock import Clock
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import ApiKey, KeyChanges, KeySpecification, PlainKey, Rotation
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.usage import user_of
from cortex_registry.entrypoints.schemas.keys import (
    KeyAnswer,
    KeyList,
    KeyListQuery,
    NewKeyAnswer,
    OwnKeyChanges,
    RotatedKeyAnswer,
    RotationRequest,
    key_fields,
)
from cortex_registry.handlers.keys import KeyService
from cortex_registry.ports import KeyScope

ListOf = Annotated[KeyListQuery, Query()]


class KeyRoutes:
    """/admin/keys, and one's own below /admin/me/keys."""

    def __init__(self, service: KeyService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    def router(self) -> APIRouter:
        routes = Routes("keys")
        routes.add("POST", "/keys", self.create, Right.KEYS_WRITE, status_code=201)
        routes.add("GET", "/keys", self.page, Right.KEYS_READ)
        routes.add("GET", "/keys/{key_id}", self.get, Right.KEYS_READ)
        routes.add("PATCH", "/keys/{key_id}", self.change, Right.KEYS_WRITE)
        routes.add("DELETE", "/keys/{key_id}", self.revoke, Right.KEYS_WRITE, status_code=204)
        routes.add("POST", "/keys/{key_id}/rotate", self.rotate, Right.KEYS_WRITE, status_code=201)
        routes.add("POST", "/me/keys", self.create_own, Right.SELF, status_code=201)
        routes.add("GET", "/me/keys", self.own_page, Right.SELF)
        routes.add("GET", "/me/keys/{key_id}", self.get_own, Right.SELF)
        routes.add("PATCH", "/me/keys/{key_id}", self.change_own, Right.SELF)
        routes.add("DELETE", "/me/keys/{key_id}", self.revoke_own, Right.SELF, status_code=204)
        routes.add("POST", "/me/keys/{key_id}/rotate", self.rotate_own, Right.SELF, status_code=201)
        return routes.router

    async def create(self, specification: KeySpecification, caller: CallerOf, response: Response) -> NewKeyAnswer:
        """Make a key. `key` is shown here and never again."""
        return self._made(await self._service.create(specification, caller), response)

    async def page(self, query: ListOf) -> KeyList:
        """Keys, oldest first, revoked ones included unless `state` says otherwise."""
        return self._listed(await self._service.page(query.wanted()), query.limit)

    async def get(self, key_id: str, response: Response) -> KeyAnswer:
        """One key."""
        return self._shown(await self._service.get(KeyId(key_id)), response)

    async def change(
        self, key_id: str, changes: KeyChanges, caller: CallerOf, expected: IfMatch, response: Response
    ) -> KeyAnswer:
        """Change what is given; null puts a default back. Every gateway follows within moments."""
        scope = KeyScope(KeyId(key_id), caller)
        return self._shown(await self._service.change(scope, changes, expected), response)

    async def revoke(self, key_id: str, caller: CallerOf, expected: IfMatch) -> None:
        """Revoke a key for ever."""
        await self._service.revoke(KeyScope(KeyId(key_id), caller), expected)

    async def rotate(
        self, key_id: str, caller: CallerOf, response: Response, request: RotationRequest | None = None
    ) -> RotatedKeyAnswer:
        """A new key with the same settings; the old one expires after `overlap_s` (a day unless said otherwise)."""
        scope = KeyScope(KeyId(key_id), caller)
        return self._rotated(await self._service.rotate(scope, _overlap(request)), response)

    async def create_own(self, specification: KeySpecification, caller: CallerOf, response: Response) -> NewKeyAnswer:
        """Make a key of one's own, within what the settings allow. `key` is shown here and never again."""
        owner = user_of(caller.identity)
        return self._made(await self._service.create_own(specification, caller, owner), response)

    async def own_page(self, query: ListOf, caller: CallerOf) -> KeyList:
        """One's own keys, oldest first."""
        return self._listed(await self._service.page(query.wanted(user_of(caller.identity))), query.limit)

    async def get_own(self, key_id: str, caller: CallerOf, response: Response) -> KeyAnswer:
        """One of one's own keys."""
        return self._shown(await self._service.get(KeyId(key_id), user_of(caller.identity)), response)

    async def change_own(
        self, key_id: str, changes: OwnKeyChanges, caller: CallerOf, expected: IfMatch, response: Response
    ) -> KeyAnswer:
        """Rename one of one's own keys."""
        change = KeyChanges(name=changes.name)
        return self._shown(await self._service.change(_own(key_id, caller), change, expected), response)

    async def revoke_own(self, key_id: str, caller: CallerOf, expected: IfMatch) -> None:
        """Revoke one of one's own keys for ever."""
        await self._service.revoke(_own(key_id, caller), expected)

    async def rotate_own(
        self, key_id: str, caller: CallerOf, response: Response, request: RotationRequest | None = None
    ) -> RotatedKeyAnswer:
        """Replace one of one's own keys by a new one with the same settings."""
        return self._rotated(await self._service.rotate(_own(key_id, caller), _overlap(request)), response)

    def _shown(self, key: ApiKey, response: Response) -> KeyAnswer:
        show_version(response, key.version)
        return KeyAnswer(**key_fields(key, self._clock.now()))

    def _listed(self, keys: Sequence[ApiKey], limit: int) -> KeyList:
        now = self._clock.now()
        items = [KeyAnswer(**key_fields(key, now)) for key in keys[:limit]]
        return KeyList(items=items, next=items[-1].id if len(keys) > limit else None)

    def _made(self, made: tuple[ApiKey, PlainKey], response: Response) -> NewKeyAnswer:
        key, plain = made
        response.headers["Cache-Control"] = "no-store"
        show_version(response, key.version)
        return NewKeyAnswer(**key_fields(key, self._clock.now()), key=plain)

    def _rotated(self, made: tuple[Rotation, PlainKey], response: Response) -> RotatedKeyAnswer:
        rotation, plain = made
        now = self._clock.now()
        response.headers["Cache-Control"] = "no-store"
        show_version(response, rotation.new.version)
        old = KeyAnswer(**key_fields(rotation.old, now))
        return RotatedKeyAnswer(**key_fields(rotation.new, now), key=plain, replaces=old)


def _own(key_id: str, caller: Caller) -> KeyScope:
    return KeyScope(KeyId(key_id), caller, user_of(caller.identity))


def _overlap(request: RotationRequest | None) -> timedelta:
    return timedelta(seconds=(request or RotationRequest()).overlap_s)
