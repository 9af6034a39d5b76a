"""API keys: how one is made, what of it is kept, what an administrator may say of it."""

import base64
import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, NewType, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator

from cortex_contracts.base import KeyId, UtcDatetime
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.events import KeyCreatedV1, KeyRevokedV1, KeyUpdatedV1
from cortex_kit.errors import DomainError
from cortex_registry.domain.specification import ServedName
from cortex_registry.domain.text import require_storable

KEY_PREFIX = "sk-cortex-"
SECRET_BYTES = 32
SHOWN_CHARACTERS = len(KEY_PREFIX) + 4

PlainKey = NewType("PlainKey", str)
Scope = Literal["*", "chat", "completions", "embeddings", "rerank", "responses", "messages", "upstream"]
"""What a key opens, by the names that the gateway asks for; `*` is everything but `upstream`, the raw pass-through to
engines, which has to be named beside it."""
Priority = Literal["interactive", "batch"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
Scopes = Annotated[tuple[Scope, ...], Field(min_length=1, max_length=8)]
Models = Annotated[tuple[ServedName, ...], Field(max_length=256)]
Networks = Annotated[tuple[str, ...], Field(max_length=256)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Limit = Annotated[int, Field(ge=1, le=2_000_000_000)]
Budget = Annotated[int, Field(ge=1, le=1_000_000_000_000_000)]
SHORT = timedelta(days=1)
"""A key that lives no longer is counted apart, so that one which programs make for a moment takes nobody's place."""
LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrent_streams", "tokens_per_month")


class KeyState(StrEnum):
    """What has become of a key."""

    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeySpecification(BaseModel):
    """What an administrator may say of a new key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    scopes: Scopes = ("*",)
    models: Models = Field(default=(), description="Served names the key may use; empty: all.")
    ip_allowlist: Networks = Field(default=(), description="Addresses or networks, e.g. 10.0.0.0/8; empty: any.")
    expires_at: UtcDatetime | None = Field(default=None, description="When it stops to work; never, if not given.")
    user_id: Identifier | None = Field(default=None, description="Whose key it is.")
    org_id: Identifier | None = Field(default=None, description="Who pays; the user's organisation, if not given.")
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent_streams: Limit | None = None
    tokens_per_month: Budget | None = Field(default=None, description="Prompt and completion, per month of UTC.")
    priority: Priority = Field(default="interactive", description="Who waits when a model is busy.")

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value

    @field_validator("ip_allowlist")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)

    @field_validator("scopes", "models")
    @classmethod
    def _no_doubles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _once_each(value)


class KeyChanges(BaseModel):
    """What may be changed of a key: a field that is given replaces, null puts the default back."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"requests_per_minute": 60, "models": ["small"]}]}
    )

    name: Name | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    ip_allowlist: Networks | None = None
    expires_at: UtcDatetime | None = None
    user_id: Identifier | None = None
    org_id: Identifier | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent_streams: Limit | None = None
    tokens_per_month: Budget | None = None
    priority: Priority | None = None
    disabled: bool | None = Field(default=None, description="A disabled key opens nothing until it is enabled again.")

    @field_validator("ip_allowlist")
    @classmethod
    def _networks(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _networks(value)

    @field_validator("scopes", "models")
    @classmethod
    def _no_doubles(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _once_each(value)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if "name" in self.model_fields_set and self.name is None:
            raise ValueError("name must not be null")
        return self

    def values(self) -> dict[str, Any]:
        """What was given, defaults in place of null; without `disabled`."""
        given = self.model_fields_set - {"disabled"}
        return {
            name: KeySpecification.model_fields[name].get_default() if value is None else value
            for name, value in ((name, getattr(self, name)) for name in sorted(given))
        }


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(entry.strip(), strict=False)) for entry in value)
    except ValueError as error:
        raise ValueError(f"ip_allowlist: {error}") from None


def _once_each(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must not repeat an entry")
    return value


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. `document.aggregateversion` is the row's version."""

    document: KeyDocumentV1
    prefix: str
    created_at: datetime
    revoked_at: datetime | None = None
    updated_at: datetime | None = None
    disabled_at: datetime | None = None
    last_used_at: datetime | None = None
    rotated_from: str | None = None
    """The key that this one replaces."""

    @property
    def id(self) -> KeyId:
        return self.document.id

    @property
    def version(self) -> int:
        return self.document.aggregateversion

    @property
    def short_lived(self) -> bool:
        """Whether it was made for a day at most."""
        ends = self.document.expires_at
        return ends is not None and ends - self.created_at <= SHORT

    def state(self, now: datetime) -> KeyState:
        """What has become of it by `now`."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.document.expires_at is not None and self.document.expires_at <= now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.disabled_at is None else KeyState.DISABLED


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys, and which page of them, oldest first."""

    user_id: str | None = None
    org_id: str | None = None
    state: KeyState | None = None
    text: str | None = None
    """Part of the name, or the beginning of the key."""
    after: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class SelfService:
    """What users may have who make keys for themselves; None: no limit."""

    scopes: frozenset[str]
    max_keys: int
    max_age: timedelta | None
    limits: Mapping[str, int | None]
    """Of LIMITS: what a key gets that asks for none, and the most it may ask for."""


def encode_key(secret: bytes) -> PlainKey:
    """`sk-cortex-` and 43 base64url characters.

    Raises:
        ValueError: not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError("a key is made of 32 random bytes")
    return PlainKey(KEY_PREFIX + base64.urlsafe_b64encode(secret).decode().rstrip("="))


def digest_of(key: PlainKey) -> str:
    """Lower-case hex SHA-256: a random 256-bit key needs no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(specification: KeySpecification, key: PlainKey, *, key_id: KeyId, now: datetime) -> ApiKey:
    """What is kept of a freshly made key."""
    fields: dict[str, Any] = {field: getattr(specification, field) for field in KeySpecification.model_fields}
    document = KeyDocumentV1(id=key_id, digest=digest_of(key), aggregateversion=1, **fields)
    return ApiKey(document, key[:SHOWN_CHARACTERS], now)


def revoked(key: ApiKey, now: datetime) -> ApiKey | None:
    """The key after its revocation; None when it is revoked already."""
    if key.revoked_at is not None:
        return None
    return replace(key, document=_next(key), revoked_at=now, updated_at=now)


def changed(key: ApiKey, changes: KeyChanges, now: datetime) -> tuple[ApiKey, tuple[str, ...]]:
    """The key after a change, and the names of what differs; the very key when nothing does.

    Raises:
        DomainError: 409 `key_revoked`; 422, `expires_at` was set to the past.
    """
    if key.revoked_at is not None:
        raise DomainError("key_revoked", "A revoked key cannot be changed. Make a new one.", status=409)
    differing = {name: value for name, value in changes.values().items() if value != getattr(key.document, name)}
    if "expires_at" in differing:
        check_expiry(differing["expires_at"], now)
    names = sorted(differing)
    disabled_at = key.disabled_at
    if "disabled" in changes.model_fields_set and bool(changes.disabled) != (key.disabled_at is not None):
        names.append("disabled")
        disabled_at = now if changes.disabled else None
    if not names:
        return key, ()
    after = replace(key, document=_next(key, **differing), disabled_at=disabled_at, updated_at=now)
    return after, tuple(names)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key on its way out, and its successor."""

    old: ApiKey
    new: ApiKey


def rotate(key: ApiKey, plain: PlainKey, *, key_id: KeyId, now: datetime, overlap: timedelta) -> Rotation:
    """A new key with the same settings; the old one expires when the overlap ends, or sooner if it would anyway.

    Raises:
        DomainError: 409 `key_not_active`.
    """
    state = key.state(now)
    if state is not KeyState.ACTIVE:
        raise DomainError("key_not_active", f"The key is {state}: only an active one is rotated.", status=409)
    ends = now + overlap
    if key.document.expires_at is not None:
        ends = min(ends, key.document.expires_at)
    document = key.document.model_copy(update={"id": key_id, "digest": digest_of(plain), "aggregateversion": 1})
    new = ApiKey(document, plain[:SHOWN_CHARACTERS], now, updated_at=now, rotated_from=key.id)
    return Rotation(replace(key, document=_next(key, expires_at=ends), updated_at=now), new)


def self_served(specification: KeySpecification, rules: SelfService, now: datetime) -> KeySpecification:
    """What a user may have of what they ask for: what they leave open gets the ceilings.

    Raises:
        DomainError: 422 naming each field that asks for too much.
    """
    errors: list[dict[str, str]] = []
    values: dict[str, Any] = {}
    if "scopes" not in specification.model_fields_set:
        values["scopes"] = ("*",) if "*" in rules.scopes else tuple(sorted(rules.scopes))
    elif not _within(specification.scopes, rules.scopes):
        errors.append(_too_much("scopes", ", ".join(sorted(rules.scopes))))
    for name, most in rules.limits.items():
        asked: int | None = getattr(specification, name)
        if most is not None and asked is None:
            values[name] = most
        elif most is not None and asked is not None and asked > most:
            errors.append(_too_much(name, str(most)))
    if rules.max_age is not None:
        latest = now + rules.max_age
        if specification.expires_at is None:
            values["expires_at"] = latest
        elif specification.expires_at > latest:
            errors.append(_too_much("expires_at", latest.isoformat(timespec="seconds")))
    if errors:
        message = f"More than you may have: {', '.join(error['field'] for error in errors)}."
        raise DomainError("invalid_request", message, status=422, details={"errors": errors})
    return specification.model_copy(update=values)


def _within(asked: tuple[str, ...], allowed: frozenset[str]) -> bool:
    """`*` allows all but the raw way to engines, which only an administrator gives."""
    beyond = set(asked) - allowed
    return not beyond or ("*" in allowed and "upstream" not in beyond)


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Raises DomainError 422 for an end that lies behind us."""
    if expires_at is not None and expires_at <= now:
        message = "expires_at is not in the future."
        errors = [{"field": "expires_at", "code": "not_in_future", "message": message}]
        raise DomainError("invalid_request", message, status=422, details={"errors": errors})


def audited(key: ApiKey, names: tuple[str, ...]) -> dict[str, JsonValue]:
    """Fields of a key for the audit log."""
    fields: dict[str, JsonValue] = key.document.model_dump(mode="json", include=set(names))
    return fields | ({"disabled": key.disabled_at is not None} if "disabled" in names else {})


def key_created(key: ApiKey) -> KeyCreatedV1:
    return KeyCreatedV1(key_id=key.id, name=key.document.name, prefix=key.prefix)


def key_updated(key: ApiKey, names: tuple[str, ...]) -> KeyUpdatedV1:
    return KeyUpdatedV1(key_id=key.id, name=key.document.name, changed=names)


def key_revoked(key: ApiKey) -> KeyRevokedV1:
    return KeyRevokedV1(key_id=key.id, name=key.document.name)


def _next(key: ApiKey, **fields: Any) -> KeyDocumentV1:
    return key.document.model_copy(update={"aggregateversion": key.version + 1, **fields})


def _too_much(field: str, most: str) -> dict[str, str]:
    return {"field": field, "code": "above_ceiling", "message": f"{field}: at most {most}"}
