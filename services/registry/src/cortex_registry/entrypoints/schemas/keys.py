"""Parameters and answers of API keys."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cortex_registry.domain.keys import ApiKey, KeyFilter, KeyState, Name
from cortex_registry.domain.text import is_id

MAX_OVERLAP_S = 90 * 24 * 3600


class KeyAnswer(BaseModel):
    """A key without what it is made of."""

    id: str
    version: int
    name: str
    prefix: str = Field(description="First characters of the key.")
    state: KeyState
    scopes: tuple[str, ...]
    models: tuple[str, ...]
    ip_allowlist: tuple[str, ...]
    expires_at: datetime | None
    user_id: str | None
    org_id: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrent_streams: int | None
    tokens_per_month: int | None
    priority: str
    disabled: bool
    last_used_at: datetime | None = Field(description="To the minute; of requests that reached the gateway.")
    rotated_from: str | None = Field(description="The key that this one replaces.")
    created_at: datetime
    updated_at: datetime
    revoked_at: datetime | None


class NewKeyAnswer(KeyAnswer):
    """The only answer that holds the key itself."""

    key: str


class RotatedKeyAnswer(NewKeyAnswer):
    """The successor, with the key itself, and what becomes of the old one."""

    replaces: KeyAnswer


class KeyList(BaseModel):
    items: list[KeyAnswer]
    next: str | None = Field(default=None, description="`after` of the next page; null on the last.")


class RotationRequest(BaseModel):
    """How long both keys work."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_s": 86400}]})

    overlap_s: int = Field(default=86_400, ge=0, le=MAX_OVERLAP_S, description="0: the old key stops at once.")


class OwnKeyChanges(BaseModel):
    """What users may change of their own keys; limits are an administrator's."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "laptop"}]})

    name: Name


class KeyListQuery(BaseModel):
    """Which keys, oldest first."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = Field(default=None, max_length=128, description="Id of the owner.")
    org: str | None = Field(default=None, max_length=128, description="Id of the organisation.")
    state: KeyState | None = None
    q: str | None = Field(default=None, max_length=128, description="Part of the name, or the beginning of the key.")
    limit: int = Field(default=100, ge=1, le=1000)
    after: str | None = Field(default=None, max_length=64, description="`next` of the page before.")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("after")
    @classmethod
    def _an_id(cls, value: str | None) -> str | None:
        if value is not None and not is_id(value):
            raise ValueError("must be `next` of the page before")
        return value

    def wanted(self, owner: str | None = None) -> KeyFilter:
        """One key more than the page holds, to know whether there is another; `owner` overrules the parameter."""
        return KeyFilter(owner or self.user, self.org, self.state, self.q, self.after, self.limit + 1)


def key_fields(key: ApiKey, now: datetime) -> dict[str, Any]:
    """Fields of a KeyAnswer."""
    shared = set(KeyAnswer.model_fields) & set(type(key.document).model_fields)
    return key.document.model_dump(include=shared) | {
        "version": key.version,
        "prefix": key.prefix,
        "state": key.state(now),
        "disabled": key.disabled_at is not None,
        "last_used_at": key.last_used_at,
        "rotated_from": key.rotated_from,
        "created_at": key.created_at,
        "updated_at": key.updated_at or key.created_at,
        "revoked_at": key.revoked_at,
    }
