"""API keys."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from cortex_contracts.base import KeyId
from cortex_registry.domain.keys import KeySpecification, digest_of, encode_key, new_key, revoked

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = KeyId("01890000-0000-7000-8000-000000000001")


def test_a_key_has_the_promised_shape_and_only_its_digest_is_kept() -> None:
    plain = encode_key(bytes(range(32)))
    assert re.fullmatch(r"sk-cortex-[A-Za-z0-9_-]{43}", plain)
    key = new_key(KeySpecification(name="ci"), plain, key_id=ID, now=NOW)
    assert key.document.digest == digest_of(plain) == hashlib.sha256(plain.encode()).hexdigest()
    assert key.prefix == plain[:14]
    assert plain not in repr(key)
    assert key.document.scopes == ("*",)


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33])
def test_a_key_of_fewer_or_more_bytes_is_never_made(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        encode_key(secret)


def test_a_revocation_happens_once() -> None:
    key = new_key(KeySpecification(name="ci"), encode_key(bytes(32)), key_id=ID, now=NOW)
    after = revoked(key, NOW)
    assert after is not None
    assert (after.document.aggregateversion, after.revoked_at) == (2, NOW)
    assert revoked(after, NOW) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x\x00"},
        {"scopes": []},
        {"scopes": ["Chat"]},
        {"scopes": ["chat", "chat"]},
        {"ip_allowlist": ["10.0.0.300"]},
        {"models": ["a b"]},
        {"requests_per_minute": 0},
        {"unknown": 1},
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeySpecification.model_validate({"name": "x"} | fields)


def test_networks_are_written_one_way() -> None:
    given = KeySpecification(name="x", ip_allowlist=(" 10.1.2.3/8 ", "::1", "192.168.0.1"))
    assert given.ip_allowlist == ("10.0.0.0/8", "::1/128", "192.168.0.1/32")
