"""Browser sessions and personal tokens: how long they last, and who they make of a request."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_contracts.rights import Role, lower_role
from cortex_registry.domain.identity import CredentialKind, Identity
from cortex_registry.domain.users import User

TOUCH_S = 60.0
"""When a credential was last used is written at most this often."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a session lasts unused, and at most."""

    idle_s: float
    absolute_s: float

    @property
    def touch_s(self) -> float:
        """How often the use of a session is written down."""
        return min(TOUCH_S, self.idle_s / 4)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser session. `id` names it; only whoever knows its secret can use it."""

    id: str
    user_id: str
    csrf_digest: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class AdminToken:
    """A personal token for scripts, without its secret."""

    id: str
    user_id: str
    name: str
    prefix: str
    role: Role
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    revoked_at: datetime | None = None


def session_is_live(session: Session, lifetimes: Lifetimes, now: datetime) -> bool:
    """Whether the session still counts."""
    return now < session.expires_at and now - session.last_seen_at < timedelta(seconds=lifetimes.idle_s)


def token_is_live(token: AdminToken, now: datetime) -> bool:
    """Whether the token still counts."""
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def is_due(last: datetime | None, every_s: float, now: datetime) -> bool:
    """Whether a use is to be written down."""
    return last is None or (now - last).total_seconds() >= every_s


def session_identity(user: User) -> Identity | None:
    """Who a session's user is now; None when disabled."""
    return _identity(CredentialKind.SESSION, user, user.role)


def token_identity(user: User, token: AdminToken) -> Identity | None:
    """As `session_identity`; never more than the user may now, nor than the token was made for."""
    return _identity(CredentialKind.TOKEN, user, lower_role(user.role, token.role))


def _identity(kind: CredentialKind, user: User, role: Role) -> Identity | None:
    if user.disabled_at is not None:
        return None
    return Identity(kind, user.username, role, user.id, user.org_id, user.must_change_password)
