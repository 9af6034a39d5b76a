"""Signing in and out: passwords, browser sessions, and the memory that slows guessing down."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from cortex_contracts.events import UserUpdatedV1
from cortex_contracts.rights import Role
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller, CredentialKind, Identity
from cortex_registry.domain.passwords import SECRET_BYTES, check_password, encode_secret, secret_digest
from cortex_registry.domain.sessions import Lifetimes, Session, session_identity, session_is_live
from cortex_registry.domain.throttle import ThrottlePolicy, address_subject, user_subject
from cortex_registry.domain.users import User
from cortex_registry.handlers.identity_ports import (
    NewSession,
    Passwords,
    Sessions,
    SignIns,
    UserChange,
    UserFacts,
    Users,
)
from cortex_registry.ports import Act

log = get_logger()
SWEEP_S = 60.0
MAX_ATTEMPTS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A session just opened: the only time that its secrets are known."""

    identity: Identity
    session: Session
    secret: str = field(repr=False)
    csrf_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a request comes from, before anybody is known to have sent it."""

    address: str | None
    user_agent: str | None
    request_id: str | None

    def as_caller(self, identity: Identity) -> Caller:
        """The visitor once they are known."""
        return Caller(identity, self.request_id, self.address)


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """In the session of which secret, from which password to which."""

    secret: str | None = field(repr=False)
    old: str = field(repr=False)
    new: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignInRules:
    """How long sessions last, and how guessing is slowed down."""

    lifetimes: Lifetimes
    by_user: ThrottlePolicy
    by_address: ThrottlePolicy


@dataclass(frozen=True, slots=True)
class SignInStores:
    """Where it is all kept."""

    users: Users
    sessions: Sessions
    sign_ins: SignIns
    passwords: Passwords


class SignIn:
    """Opens and ends sessions. `forget` is called after every change that ends one."""

    def __init__(
        self,
        stores: SignInStores,
        rules: SignInRules,
        *,
        clock: Clock,
        forget: Callable[[], None],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._stores = stores
        self._rules = rules
        self._clock = clock
        self._forget = forget
        self._random_bytes = random_bytes

    async def login(self, username: str, password: str, visitor: Visitor) -> Opened:
        """Open a session.

        An unknown user, a disabled one and a wrong password take the same steps and get the same answer.

        Raises:
            DomainError: 401 `invalid_credentials`, 429 `too_many_attempts`.
        """
        user, known = await self._prove(username, password, visitor)
        opened = await self.open_for(user, visitor)
        if known is not None and self._stores.passwords.is_outdated(known):
            await self._stores.sign_ins.rehash(user.id, known, await self._stores.passwords.hash(password))
            log.info("password_hash_renewed", user_id=user.id)
        return opened

    async def open_for(self, user: User, visitor: Visitor) -> Opened:
        """Open a session for a user who has proved who they are. Raises DomainError 401 for one disabled meanwhile."""
        opened = self._session(user, visitor)
        if not await self._stores.sessions.open(_stored(opened), visitor.as_caller(opened.identity)):
            raise _refused()
        log.info("user_signed_in", user_id=user.id)
        return opened

    async def logout(self, secret: str | None, caller: Caller) -> None:
        """End the session of the request; harmless when there is none."""
        if secret is not None:
            await self._stores.sessions.end(secret_digest(secret), caller)
            self._forget()

    async def change_password(self, change: PasswordChange, visitor: Visitor, caller: Caller) -> Opened:
        """A new password, a new session in the place of this one; all others end.

        Raises:
            DomainError: 403 `session_required`, 401 `invalid_credentials`, 422 `weak_password`, 429.
        """
        secret, old, new = change.secret, change.old, change.new
        if caller.identity.kind is not CredentialKind.SESSION or secret is None:
            message = "A password is changed in a session: sign in with POST /admin/auth/login."
            raise DomainError("session_required", message, status=403)
        check_password(new, caller.identity.name)
        user, proven = await self._prove(caller.identity.name, old, visitor)
        if old == new:
            raise DomainError("weak_password", "The new password is the old one.", status=422)
        known = await self._stores.passwords.hash(new)

        def decide(facts: UserFacts) -> UserChange:
            if facts.password_hash != proven or facts.user.disabled_at is not None:
                raise _refused()  # reset or disabled meanwhile
            now = self._clock.now()
            after = replace(facts.user, must_change_password=False, version=facts.user.version + 1, updated_at=now)
            event = UserUpdatedV1(id=after.id, name=after.username, changed=("password",))
            act = Act(caller, "user.change_password", event, event.changed)
            return UserChange(after, act, password_hash=known, ends_sessions=True)

        changed = await self._stores.users.change(user.id, decide)
        self._forget()
        if changed is None:
            raise _refused()
        opened = self._session(changed, visitor)
        if not await self._stores.sessions.rotate(secret_digest(secret), _stored(opened)):
            raise _refused()
        log.info("user_password_changed", user_id=user.id)
        return opened

    async def sessions(self, secret: str | None, identity: Identity) -> Sequence[tuple[Session, bool]]:
        """The caller's sessions that still count, newest first, and whether each is the one of the request."""
        if identity.user_id is None:
            return []
        now = self._clock.now()
        current = await self._stores.sessions.find(secret_digest(secret)) if secret is not None else None
        current_id = current[0].id if current is not None else None
        found = await self._stores.sessions.of_user(identity.user_id)
        live = [session for session in found if session_is_live(session, self._rules.lifetimes, now)]
        return [(session, session.id == current_id) for session in live]

    async def end_session(self, session_id: str, caller: Caller) -> None:
        """End one of the caller's sessions. Raises DomainError 404 `session_not_found`."""
        user_id = caller.identity.user_id
        if user_id is None or not await self._stores.sessions.end_by_id(user_id, session_id, caller):
            raise DomainError("session_not_found", f"You have no session {session_id!r}.", status=404)
        self._forget()

    async def end_other_sessions(self, secret: str | None, caller: Caller) -> int:
        """End all of the caller's sessions but the one of the request; how many."""
        if caller.identity.user_id is None:
            return 0
        kept = secret_digest(secret) if secret is not None else None
        ended = await self._stores.sessions.end_others(caller.identity.user_id, kept, caller)
        self._forget()
        return ended

    async def sweep(self) -> None:
        """Forget what is over, for ever; a task of the service."""
        window = max(self._rules.by_user.window_s, self._rules.by_address.window_s)
        while True:
            try:
                now = self._clock.now()
                await self._stores.sign_ins.sweep(now, older_than_s=window, at_most=MAX_ATTEMPTS_KEPT)
            except TransientError:
                log.debug("identity_sweep_postponed")
            await asyncio.sleep(SWEEP_S)

    async def _prove(self, username: str, password: str, visitor: Visitor) -> tuple[User, str | None]:
        """The user whose password it is; counted as an attempt before, forgiven after."""
        user_key, address_key = user_subject(username), address_subject(visitor.address)
        subjects = ((user_key, self._rules.by_user), (address_key, self._rules.by_address))
        facts = await self._stores.sign_ins.admit(subjects, username, self._clock.now())
        right = await self._stores.passwords.verify(password, facts.password_hash)
        if facts.user is None or not right or facts.user.disabled_at is not None:
            log.info("sign_in_refused")
            await self._stores.sign_ins.note_failure(username, visitor.as_caller(_NOBODY))
            raise _refused()
        await self._stores.sign_ins.forgive(user_key, address_key)
        return facts.user, facts.password_hash

    def _session(self, user: User, visitor: Visitor) -> Opened:
        identity = session_identity(user)
        if identity is None:
            raise _refused()
        now = self._clock.now()
        secret, csrf_token = (encode_secret(self._random_bytes(SECRET_BYTES)) for _ in range(2))
        session = Session(
            id=uuid7(),
            user_id=user.id,
            csrf_digest=secret_digest(csrf_token),
            created_at=now,
            last_seen_at=now,
            expires_at=now + timedelta(seconds=self._rules.lifetimes.absolute_s),
            address=visitor.address,
            user_agent=visitor.user_agent,
        )
        return Opened(identity, session, secret, csrf_token)


_NOBODY = Identity(CredentialKind.SESSION, "anonymous", Role.VIEWER)


def _stored(opened: Opened) -> NewSession:
    return NewSession(opened.session, secret_digest(opened.secret))


def _refused() -> DomainError:
    return DomainError("invalid_credentials", "User name or password is wrong.", status=401)
