"""API keys: how one is made, what of it is kept, what an administrator may say of it."""

import base64
import hashlib
import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, NewType, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from cortex_contracts.base import KeyId, UtcDatetime
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.events import KeyCreatedV1, KeyRevokedV1
from cortex_registry.domain.specification import ServedName
from cortex_registry.domain.text import require_storable

KEY_PREFIX = "sk-cortex-"
SECRET_BYTES = 32
SHOWN_CHARACTERS = len(KEY_PREFIX) + 4

PlainKey = NewType("PlainKey", str)
Scope = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z_]{0,31})$")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Limit = Annotated[int, Field(ge=1, le=2_000_000_000)]


class KeySpecification(BaseModel):
    """What an administrator may say of a new key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
    scopes: tuple[Scope, ...] = Field(default=("*",), min_length=1, max_length=32)
    models: tuple[ServedName, ...] = Field(default=(), max_length=256)
    """Served names the key may use; empty means all."""
    ip_allowlist: tuple[str, ...] = Field(default=(), max_length=256)
    """Addresses or networks, e.g. 10.0.0.0/8; empty means any."""
    expires_at: UtcDatetime | None = None
    user_id: Identifier | None = None
    org_id: Identifier | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent_streams: Limit | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_storable_text(cls, value: object) -> object:
        require_storable(value)
        return value

    @field_validator("ip_allowlist")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ipaddress.ip_network(entry.strip(), strict=False)) for entry in value)
        except ValueError as error:
            raise ValueError(f"ip_allowlist: {error}") from None

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        for values in (self.scopes, self.models):
            if len(set(values)) != len(values):
                raise ValueError("scopes and models must not repeat an entry")
        return self


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. `document.aggregateversion` is the row's version."""

    document: KeyDocumentV1
    prefix: str
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def id(self) -> KeyId:
        return self.document.id


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
    version = key.document.aggregateversion + 1
    return replace(key, document=key.document.model_copy(update={"aggregateversion": version}), revoked_at=now)


def key_created(key: ApiKey) -> KeyCreatedV1:
    return KeyCreatedV1(key_id=key.id, name=key.document.name, prefix=key.prefix)


def key_revoked(key: ApiKey) -> KeyRevokedV1:
    return KeyRevokedV1(key_id=key.id, name=key.document.name)
