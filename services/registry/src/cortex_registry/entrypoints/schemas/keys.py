"""Answers about API keys."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from cortex_registry.domain.keys import ApiKey


class KeyAnswer(BaseModel):
    """A key without what it is made of."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    ip_allowlist: tuple[str, ...]
    expires_at: datetime | None
    user_id: str | None
    org_id: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrent_streams: int | None
    created_at: datetime
    revoked_at: datetime | None


class NewKeyAnswer(KeyAnswer):
    """The only answer that holds the key itself."""

    key: str


class KeyList(BaseModel):
    items: list[KeyAnswer]


def key_fields(key: ApiKey) -> dict[str, Any]:
    """Fields of a KeyAnswer."""
    shared = {field for field in KeyAnswer.model_fields if field not in ("prefix", "created_at", "revoked_at")}
    return key.document.model_dump(include=shared) | {
        "prefix": key.prefix,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
