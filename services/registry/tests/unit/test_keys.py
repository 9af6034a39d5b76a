"""API keys."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from cortex_contracts.base import KeyId
from cortex_kit.errors import DomainError
from cortex_registry.domain.keys import (
    ApiKey,
    KeyChanges,
    KeySpecification,
    KeyState,
    PlainKey,
    SelfService,
    changed,
    digest_of,
    encode_key,
    new_key,
    revoked,
    rotate,
    self_served,
)

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


NEXT = KeyId("01890000-0000-7000-8000-000000000002")
HOUR = timedelta(hours=1)


def key(**fields: Any) -> ApiKey:
    return new_key(KeySpecification(name="ci", **fields), encode_key(bytes(32)), key_id=ID, now=NOW)


@pytest.mark.parametrize(
    ("left", "overlap", "end"),
    [(None, HOUR, HOUR), (2 * HOUR, HOUR, HOUR), (HOUR, 2 * HOUR, HOUR), (None, timedelta(0), timedelta(0))],
)
def test_a_rotated_key_ends_with_the_overlap_or_sooner_if_it_would_anyway(
    left: timedelta | None, overlap: timedelta, end: timedelta
) -> None:
    old = key(expires_at=None if left is None else NOW + left, requests_per_minute=7)
    plain = PlainKey("sk-cortex-another")
    rotation = rotate(old, plain, key_id=NEXT, now=NOW, overlap=overlap)
    assert rotation.old.document.expires_at == NOW + end
    assert (rotation.old.version, rotation.new.version) == (2, 1)
    assert rotation.new.rotated_from == old.id
    settled = {"id", "digest", "aggregateversion"}
    assert rotation.new.document.model_dump(exclude=settled) == old.document.model_dump(exclude=settled)
    assert rotation.new.document.digest == digest_of(plain)


def test_only_an_active_key_is_rotated() -> None:
    dead = revoked(key(), NOW)
    assert dead is not None
    off, _ = changed(key(), KeyChanges(disabled=True), NOW)
    for one, at in ((dead, NOW), (off, NOW), (key(expires_at=NOW + HOUR), NOW + HOUR)):
        with pytest.raises(DomainError) as caught:
            rotate(one, PlainKey("x"), key_id=NEXT, now=at, overlap=HOUR)
        assert caught.value.code == "key_not_active"
    assert [dead.state(NOW), off.state(NOW), key(expires_at=NOW + HOUR).state(NOW + HOUR)] == [
        KeyState.REVOKED,
        KeyState.DISABLED,
        KeyState.EXPIRED,
    ]


def test_a_change_that_changes_nothing_makes_no_version() -> None:
    same, names = changed(key(models=("m",)), KeyChanges(models=("m",), disabled=False), NOW)
    assert (same.version, names) == (1, ())
    after, names = changed(key(scopes=("chat",)), KeyChanges(scopes=None, disabled=True), NOW)
    assert (after.version, names, after.document.scopes) == (2, ("scopes", "disabled"), ("*",))


def test_what_a_user_leaves_open_gets_the_ceiling() -> None:
    rules = SelfService(frozenset({"*"}), 5, None, {"tokens_per_minute": 9, "requests_per_minute": None})
    given = self_served(KeySpecification(name="x"), rules, NOW)
    assert (given.scopes, given.tokens_per_minute, given.requests_per_minute, given.expires_at) == (
        ("*",),
        9,
        None,
        None,
    )
    assert self_served(KeySpecification(name="x", scopes=("chat",)), rules, NOW).scopes == ("chat",)
    with pytest.raises(DomainError) as caught:
        self_served(KeySpecification(name="x", tokens_per_minute=10), rules, NOW)
    assert caught.value.details["errors"] == [
        {"field": "tokens_per_minute", "code": "above_ceiling", "message": "tokens_per_minute: at most 9"}
    ]


def test_the_raw_way_to_engines_is_nothing_that_users_give_themselves():
    rules = SelfService(frozenset({"*"}), max_keys=3, max_age=None, limits={})
    assert self_served(KeySpecification(name="x", scopes=("*",)), rules, NOW).scopes == ("*",)
    with pytest.raises(DomainError):
        self_served(KeySpecification(name="x", scopes=("*", "upstream")), rules, NOW)
