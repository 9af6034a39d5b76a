"""What administrators and users do with API keys."""

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta

from cortex_contracts.base import KeyId
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import (
    SECRET_BYTES,
    ApiKey,
    KeyChanges,
    KeyFilter,
    KeySpecification,
    PlainKey,
    Rotation,
    SelfService,
    check_expiry,
    encode_key,
    new_key,
    self_served,
)
from cortex_registry.domain.versions import Expected
from cortex_registry.ports import KeyRepository, KeyScope

log = get_logger()


class KeyService:
    """Commands and queries on keys. Raises UnavailableError when the database is away."""

    def __init__(
        self,
        repository: KeyRepository,
        *,
        clock: Clock,
        self_service: SelfService,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._repository = repository
        self.clock = clock
        self._self_service = self_service
        self._random_bytes = random_bytes

    async def create(self, specification: KeySpecification, caller: Caller) -> tuple[ApiKey, PlainKey]:
        """Make a key. The plain key is returned here and kept nowhere.

        Raises:
            DomainError: 422 for an end in the past, an unknown user or organisation.
        """
        return await self._create(specification, caller, None)

    async def create_own(self, specification: KeySpecification, caller: Caller, owner: str) -> tuple[ApiKey, PlainKey]:
        """Make a key for oneself, with no more than the settings allow.

        Raises:
            DomainError: 403 `self_service_off`; 409 `too_many_keys`; 422 for what asks for too much.
        """
        rules = self._self_service
        if rules.max_keys == 0:
            message = "Users make no keys here. Ask an administrator for one."
            raise DomainError("self_service_off", message, status=403)
        allowed = self_served(specification, rules, self.clock.now())
        # The organisation is that of the user: nobody spends another's budget.
        mine = allowed.model_copy(update={"user_id": owner, "org_id": None})
        return await self._create(mine, caller, rules.max_keys)

    async def _create(
        self, specification: KeySpecification, caller: Caller, most: int | None
    ) -> tuple[ApiKey, PlainKey]:
        now = self.clock.now()
        check_expiry(specification.expires_at, now)
        plain = encode_key(self._random_bytes(SECRET_BYTES))
        key = new_key(specification, plain, key_id=KeyId(uuid7()), now=now)
        stored = await self._repository.add(key, caller, most=most)
        log.info("key_created", key_id=key.id, prefix=key.prefix)
        return stored, plain

    async def list_all(self) -> Sequence[ApiKey]:
        """Oldest first, revoked ones included."""
        return await self._repository.list_all()

    async def page(self, wanted: KeyFilter) -> Sequence[ApiKey]:
        """A page, oldest first."""
        return await self._repository.page(wanted, self.clock.now())

    async def get(self, key_id: KeyId, owner: str | None = None) -> ApiKey:
        """Raises DomainError 404 `key_not_found`, also for a key of somebody else than `owner`."""
        key = await self._repository.find(key_id)
        if key is None or (owner is not None and key.document.user_id != owner):
            raise _missing(key_id)
        return key

    async def change(self, scope: KeyScope, changes: KeyChanges, expected: Expected) -> ApiKey:
        """Change what is given. Raises DomainError as `domain.keys.changed`, 404 `key_not_found`, 412."""
        key = await self._repository.change(scope, changes, expected, self.clock.now())
        if key is None:
            raise _missing(scope.key_id)
        log.info("key_updated", key_id=key.id, version=key.version)
        return key

    async def revoke(self, scope: KeyScope, expected: Expected = None) -> None:
        """Revoke for ever; harmless when done before. Raises DomainError 404 `key_not_found`, 412."""
        key = await self._repository.revoke(scope, expected, self.clock.now())
        if key is None:
            raise _missing(scope.key_id)
        log.info("key_revoked", key_id=key.id)

    async def rotate(self, scope: KeyScope, overlap: timedelta) -> tuple[Rotation, PlainKey]:
        """A new key with the same settings, and an end for the old one, together or not at all.

        Raises:
            DomainError: 404 `key_not_found`; 409 `key_not_active`, `already_rotated`.
        """
        plain = encode_key(self._random_bytes(SECRET_BYTES))
        new = KeyId(uuid7()), plain
        rotation = await self._repository.rotate(scope, new, overlap, self.clock.now())
        if rotation is None:
            raise _missing(scope.key_id)
        log.info("key_rotated", key_id=rotation.old.id, successor=rotation.new.id)
        return rotation, plain


def _missing(key_id: KeyId) -> DomainError:
    return DomainError("key_not_found", f"There is no key {key_id[:64]!r}.", status=404)
