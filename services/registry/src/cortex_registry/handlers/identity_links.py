"""Sign-in links: whoever runs Cortex on this machine lets an administrator in without a password."""

import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from cortex_contracts.events import UserUpdatedV1
from cortex_contracts.rights import Role
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import Caller, CredentialKind
from cortex_registry.domain.passwords import check_password
from cortex_registry.domain.sessions import session_identity
from cortex_registry.domain.sign_in_codes import LIFETIME_S, SignInCode, statement
from cortex_registry.domain.users import User
from cortex_registry.handlers.identity_ports import Page, Passwords, UserChange, UserFacts, UserFilter, Users
from cortex_registry.handlers.identity_sign_in import Opened, SignIn, Visitor
from cortex_registry.ports import Act

log = get_logger()


class SignInLinks:
    """Makes codes and opens sessions by them. `prove` signs a statement."""

    def __init__(
        self, users: Users, passwords: Passwords, sign_in: SignIn, *, clock: Clock, prove: Callable[[str], str]
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._sign_in = sign_in
        self._clock = clock
        self._prove = prove

    async def make(self, username: str | None, caller: Caller) -> tuple[User, str, datetime]:
        """A code for the user, or for the oldest administrator who may sign in; until when it is good.

        Raises:
            DomainError: 403 `root_token_required`, 404 `user_not_found`.
        """
        if caller.identity.kind is not CredentialKind.ROOT:
            message = "Only the admin token of the settings makes a sign-in link."
            raise DomainError("root_token_required", message, status=403)
        return await make_code(self._users, self._prove, self._clock.now(), username)

    async def exchange(self, text: str, new_password: str | None, visitor: Visitor) -> Opened:
        """Open a session by a code, which is used up. Whoever has to change their password gives the new one here.

        Raises:
            DomainError: 401 `invalid_code`, 409 `new_password_required`, 422 `weak_password`.
        """
        code = SignInCode.parse(text)
        user = await self._users.find(code.user_id) if code is not None else None
        if code is None or user is None or not self._holds(code, user):
            raise _refused()
        if user.must_change_password and new_password is None:
            message = "Choose a password of your own with this link."
            raise DomainError("new_password_required", message, status=409, details={"username": user.username})
        known = None
        if new_password is not None:
            check_password(new_password, user.username)
            known = await self._passwords.hash(new_password)
        changed = await self._users.change(user.id, self._use(code, known, visitor))
        if changed is None:
            raise _refused()
        return await self._sign_in.open_for(changed, visitor)

    def _use(self, code: SignInCode, known: str | None, visitor: Visitor) -> Callable[[UserFacts], UserChange]:
        def decide(facts: UserFacts) -> UserChange:
            user = facts.user
            identity = session_identity(user)
            if identity is None or not self._holds(code, user):
                raise _refused()  # used, or the user was changed, since it was looked at
            must_change = user.must_change_password and known is None
            after = replace(
                user, version=user.version + 1, must_change_password=must_change, updated_at=self._clock.now()
            )
            changed = ("password",) if known is not None else ()
            event = UserUpdatedV1(id=user.id, name=user.username, changed=changed)
            act = Act(visitor.as_caller(identity), "auth.use_sign_in_code", event, changed)
            return UserChange(after, act, password_hash=known, ends_sessions=known is not None)

        return decide

    def _holds(self, code: SignInCode, user: User) -> bool:
        expected = self._prove(statement(user.id, user.version, code.expires))
        right = hmac.compare_digest(code.proof, expected)
        return right and user.disabled_at is None and not code.is_over(self._clock.now())


def _refused() -> DomainError:
    message = "This sign-in link was used, has expired, or was never one. Ask for another, or use your password."
    return DomainError("invalid_code", message, status=401)


async def make_code(
    users: Users, prove: Callable[[str], str], now: datetime, username: str | None
) -> tuple[User, str, datetime]:
    """A code for the user, or for the oldest administrator who may sign in; until when it is good.

    Raises:
        DomainError: 404 `user_not_found`.
    """
    user = await _wanted(users, username)
    expires = int(now.timestamp()) + LIFETIME_S
    code = SignInCode(user.id, expires, prove(statement(user.id, user.version, expires)))
    log.info("sign_in_code_made", user_id=user.id)
    return user, code.text(), datetime.fromtimestamp(expires, UTC)


async def _wanted(users: Users, username: str | None) -> User:
    if username is None:
        found = await users.page(UserFilter(role=Role.ADMIN, disabled=False), Page(limit=1))
    else:
        matching = await users.page(UserFilter(query=username, disabled=False), Page(limit=100))
        found = [user for user in matching if user.username.lower() == username.lower()]
    if not found:
        raise DomainError("user_not_found", "There is no such user who may sign in.", status=404)
    return found[0]
