"""What an administrator does with API keys."""

import secrets
from collections.abc import Callable, Sequence

from cortex_contracts.base import KeyId
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import (
    SECRET_BYTES,
    ApiKey,
    KeySpecification,
    PlainKey,
    encode_key,
    key_created,
    new_key,
)
from cortex_registry.ports import Act, KeyRepository

log = get_logger()


class KeyService:
    """Commands and queries on keys. Raises UnavailableError when the database is away."""

    def __init__(
        self,
        repository: KeyRepository,
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._random_bytes = random_bytes

    async def create(self, specification: KeySpecification, caller: Caller) -> tuple[ApiKey, PlainKey]:
        """Make a key. The plain key is returned here and kept nowhere."""
        now = self._clock.now()
        if specification.expires_at is not None and specification.expires_at <= now:
            message = "expires_at is not in the future."
            errors = [{"field": "expires_at", "code": "not_in_future", "message": message}]
            raise DomainError("invalid_request", message, status=422, details={"errors": errors})
        plain = encode_key(self._random_bytes(SECRET_BYTES))
        key = new_key(specification, plain, key_id=KeyId(uuid7()), now=now)
        await self._repository.add(key, Act(caller, "key.create", key_created(key)))
        log.info("key_created", key_id=key.id, prefix=key.prefix)
        return key, plain

    async def list_all(self) -> Sequence[ApiKey]:
        """Oldest first, revoked ones included."""
        return await self._repository.list_all()

    async def revoke(self, key_id: KeyId, caller: Caller) -> None:
        """Revoke for ever; harmless when done before. Raises DomainError 404 `key_not_found`."""
        key = await self._repository.revoke(key_id, self._clock.now(), caller)
        if key is None:
            raise DomainError("key_not_found", f"There is no key {key_id!r}.", status=404)
        log.info("key_revoked", key_id=key_id)
