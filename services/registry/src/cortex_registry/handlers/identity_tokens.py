"""Personal tokens: how scripts act for a user."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from cortex_contracts.rights import Role, lower_role
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller, CredentialKind
from cortex_registry.domain.passwords import (
    SECRET_BYTES,
    SHOWN_CHARACTERS,
    TOKEN_PREFIX,
    encode_secret,
    secret_digest,
)
from cortex_registry.domain.sessions import AdminToken
from cortex_registry.handlers.identity_ports import Tokens

log = get_logger()
MAX_TOKENS = 100


class TokenService:
    """Commands and queries on the caller's own tokens. `forget` is called after every revocation."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        clock: Clock,
        forget: Callable[[], None],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._forget = forget
        self._random_bytes = random_bytes

    async def create(
        self, name: str, role: Role | None, expires_at: datetime | None, caller: Caller
    ) -> tuple[AdminToken, str]:
        """A token and its secret, which is returned here and kept nowhere.

        Only a session makes one: otherwise a token that leaks could make others that outlive it.

        Raises:
            DomainError: 403 `session_required`, `password_change_required`, 422 for an expiry that has passed,
                409 `too_many_tokens`.
        """
        identity, now = caller.identity, self._clock.now()
        if identity.kind is not CredentialKind.SESSION or identity.user_id is None:
            message = "A personal token is made in a session: sign in with POST /admin/auth/login, or `cortex login`."
            raise DomainError("session_required", message, status=403)
        if identity.must_change_password:
            raise DomainError("password_change_required", "Change your password first.", status=403)
        if expires_at is not None and expires_at <= now:
            message = "expires_at is not in the future."
            errors = [{"field": "expires_at", "code": "not_in_future", "message": message}]
            raise DomainError("invalid_request", message, status=422, details={"errors": errors})
        secret = TOKEN_PREFIX + encode_secret(self._random_bytes(SECRET_BYTES))
        token = AdminToken(
            id=uuid7(),
            user_id=identity.user_id,
            name=name,
            prefix=secret[:SHOWN_CHARACTERS],
            role=lower_role(identity.role, role or identity.role),
            expires_at=expires_at,
            last_used_at=None,
            created_at=now,
        )
        await self._tokens.add(token, secret_digest(secret), caller, at_most=MAX_TOKENS)
        log.info("personal_token_created", user_id=token.user_id, token_id=token.id)
        return token, secret

    async def list_own(self, caller: Caller) -> Sequence[AdminToken]:
        """Oldest first, expired ones included, revoked ones not."""
        user_id = caller.identity.user_id
        return await self._tokens.of_user(user_id) if user_id is not None else []

    async def revoke(self, token_id: str, caller: Caller) -> None:
        """For ever. Raises DomainError 404 `token_not_found`."""
        user_id = caller.identity.user_id
        token = None
        if user_id is not None:
            token = await self._tokens.revoke(user_id, token_id, self._clock.now(), caller)
        if token is None:
            raise DomainError("token_not_found", f"You have no token {token_id!r}.", status=404)
        self._forget()
        log.info("personal_token_revoked", user_id=token.user_id, token_id=token.id)
