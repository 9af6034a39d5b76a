"""Who asks, and what they may."""

from dataclasses import dataclass
from enum import StrEnum

from cortex_contracts.rights import GRANTS, Right, Role, grants


class CredentialKind(StrEnum):
    """How somebody proved who they are."""

    ROOT = "root"
    """The admin token of the settings: no user, every right, works without the database."""
    TOKEN = "token"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who proved who they are."""

    kind: CredentialKind
    name: str
    """User name, or `admin` for the token of the settings."""
    role: Role
    user_id: str | None = None
    org_id: str | None = None
    must_change_password: bool = False

    def may(self, right: Right) -> bool:
        """Whether this identity has the right."""
        return grants(self.role, right)

    @property
    def rights(self) -> tuple[Right, ...]:
        """Everything this identity may do now, for a console that hides the rest."""
        if self.must_change_password:
            return (Right.ACCOUNT,)
        return tuple(right for right in GRANTS if self.may(right))


ROOT = Identity(CredentialKind.ROOT, "admin", Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, from where, in which request: for revisions, events and audit."""

    identity: Identity
    request_id: str | None = None
    address: str | None = None

    @property
    def actor(self) -> str:
        """Name in revisions and audit entries."""
        return self.identity.name


SYSTEM = Caller(Identity(CredentialKind.ROOT, "registry", Role.ADMIN))
"""The registry itself."""
