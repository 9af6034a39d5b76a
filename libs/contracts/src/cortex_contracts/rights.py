"""Roles of users and what each may do: the registry judges by it, the console shows by it what one may not."""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """Each role may do what the one before may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_RANK: Mapping[Role, int] = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


def lower_role(one: Role, other: Role) -> Role:
    """The one of the two that may do less."""
    return min(one, other, key=_RANK.__getitem__)


class Right(StrEnum):
    """What a route asks for. `GRANTS` says who has it."""

    PUBLIC = "public"
    """Nobody need sign in."""
    ACCOUNT = "account"
    """One's own sign-in: who one is, password, sessions. All that a one-time password is good for."""
    SELF = "self"
    """Any signed-in user, about what is their own."""
    MODELS_READ = "models:read"
    MODELS_OPERATE = "models:operate"
    """Start, stop, restart, test."""
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
    """What backups and jobs there are, and how they went."""
    BACKUPS_WRITE = "backups:write"
    """Make, cancel and restore backups: they hold everything but the secrets' key."""


GRANTS: Mapping[Right, Role] = {
    Right.ACCOUNT: Role.VIEWER,
    Right.SELF: Role.VIEWER,
    Right.MODELS_READ: Role.VIEWER,
    Right.MODELS_OPERATE: Role.OPERATOR,
    Right.MODELS_WRITE: Role.ADMIN,
    Right.LOGS_READ: Role.OPERATOR,
    Right.RECIPES_READ: Role.VIEWER,
    Right.RECIPES_WRITE: Role.ADMIN,
    Right.UPSTREAMS_WRITE: Role.ADMIN,
    Right.KEYS_READ: Role.ADMIN,
    Right.KEYS_WRITE: Role.ADMIN,
    Right.USERS_READ: Role.ADMIN,
    Right.USERS_WRITE: Role.ADMIN,
    Right.USAGE_READ: Role.VIEWER,
    Right.EVENTS_READ: Role.VIEWER,
    Right.WEBHOOKS_READ: Role.ADMIN,
    Right.WEBHOOKS_WRITE: Role.ADMIN,
    Right.AUDIT_READ: Role.ADMIN,
    Right.SYSTEM_READ: Role.VIEWER,
    Right.SYSTEM_WRITE: Role.ADMIN,
    Right.BACKUPS_READ: Role.OPERATOR,
    Right.BACKUPS_WRITE: Role.ADMIN,
}
"""The lowest role that has a right. `PUBLIC` is not here: it needs no role."""


def grants(role: Role, right: Right) -> bool:
    """Whether whoever has the role has the right."""
    return right is Right.PUBLIC or _RANK[role] >= _RANK[GRANTS[right]]
