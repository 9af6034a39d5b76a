"""Who is signed in, and what they may: the registry's words; the registry remains the judge."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cortex_console.domain.shapes import Row, text


class Right(StrEnum):
    """The registry's rights, by the names it gives them in `/admin/auth/me`."""

    ACCOUNT = "account"
    SELF = "self"
    MODELS_READ = "models:read"
    MODELS_OPERATE = "models:operate"
    MODELS_WRITE = "models:write"
    LOGS_READ = "logs:read"
    RECIPES_READ = "recipes:read"
    RECIPES_WRITE = "recipes:write"
    UPSTREAMS_WRITE = "upstreams:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    USAGE_READ = "usage:read"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    AUDIT_READ = "audit:read"
    SYSTEM_READ = "system:read"
    SYSTEM_WRITE = "system:write"
    BACKUPS_READ = "backups:read"
    BACKUPS_WRITE = "backups:write"


_WHO = {
    Right.MODELS_OPERATE: "an operator or an administrator",
    Right.LOGS_READ: "an operator or an administrator",
    Right.BACKUPS_READ: "an operator or an administrator",
}


@dataclass(frozen=True, slots=True)
class Me:
    """Whoever signed in."""

    username: str
    role: str
    user_id: str | None
    must_change_password: bool
    rights: frozenset[str]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read the answer of `/admin/auth/me`."""
        return cls(
            username=text(answer.get("username")),
            role=text(answer.get("role")),
            user_id=answer.get("user_id"),
            must_change_password=bool(answer.get("must_change_password")),
            rights=frozenset(str(right) for right in answer.get("rights") or ()),
        )

    def may(self, right: Right) -> bool:
        """Whether buttons that need the right are offered."""
        return right.value in self.rights

    def why_not(self, right: Right) -> str | None:
        """Why a button is disabled; None when it is not."""
        if self.may(right):
            return None
        return f"Signed in as {self.role}. This takes {_WHO.get(right, 'an administrator')}."
