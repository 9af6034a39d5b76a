"""Rows of users, organisations, sessions and tokens, and audit entries that belong to no event."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from cortex_contracts.rights import Role
from cortex_registry.adapters.postgres import Connection
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.sessions import AdminToken, Session
from cortex_registry.domain.users import Org, User

_OUTBOX = load_queries("outbox")


async def write_audit(
    connection: Connection, caller: Caller, action: str, subject: str, detail: Mapping[str, JsonValue] | None = None
) -> None:
    """An audit entry alone, for what subscribers need not hear of."""
    await connection.execute(
        _OUTBOX["insert_audit"],
        caller.actor,
        action,
        subject[:128],
        json.dumps(detail or {}),
        caller.request_id,
        caller.identity.user_id,
        caller.address,
    )


def user_from_row(row: Row) -> User:
    return User(
        id=str(row["id"]),
        version=row["version"],
        username=row["username"],
        display_name=row["display_name"],
        role=Role(row["role"]),
        org_id=str(row["org_id"]) if row["org_id"] is not None else None,
        must_change_password=row["must_change_password"],
        disabled_at=row["disabled_at"],
        last_login_at=row["last_login_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def org_from_row(row: Row) -> Org:
    return Org(str(row["id"]), row["version"], row["name"], row["created_at"], row["updated_at"], row["users"])


def session_from_row(row: Row, user_id: str) -> Session:
    return Session(
        id=str(row["session_id"]),
        user_id=user_id,
        csrf_digest=row["csrf_digest"],
        created_at=row["opened_at"],
        last_seen_at=row["last_seen_at"],
        expires_at=row["expires_at"],
        address=row["address"],
        user_agent=row["user_agent"],
    )


def token_from_row(row: Row, user_id: str) -> AdminToken:
    return AdminToken(
        id=str(row["token_id"]),
        user_id=user_id,
        name=row["token_name"],
        prefix=row["prefix"],
        role=Role(row["token_role"]),
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        created_at=row["made_at"],
        revoked_at=row["revoked_at"],
    )
