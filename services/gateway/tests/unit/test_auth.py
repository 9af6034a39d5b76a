from datetime import UTC, datetime
from hashlib import sha256

import pytest

from cortex_gateway.domain.auth import authenticate, build_key_ring, mask, require_scope
from cortex_gateway.domain.errors import ApiError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = "ctx-0123456789abcdef"
DIGEST = sha256(SECRET.encode()).hexdigest()


@pytest.mark.parametrize(
    ("authorization", "fields", "ip", "status", "code"),
    [
        (None, {}, "1.2.3.4", 401, "invalid_api_key"),
        (b"Basic abc", {}, "1.2.3.4", 401, "invalid_api_key"),
        (b"Bearer ", {}, "1.2.3.4", 401, "invalid_api_key"),
        (b"Bearer wrong", {}, "1.2.3.4", 401, "invalid_api_key"),
        (b"Bearer " + SECRET.encode(), {"expires_at": NOW}, "1.2.3.4", 401, "invalid_api_key"),
        (b"Bearer " + SECRET.encode(), {"ip_allowlist": ("10.0.0.0/8",)}, "1.2.3.4", 403, "ip_not_allowed"),
        (b"Bearer " + SECRET.encode(), {"ip_allowlist": ("10.0.0.0/8",)}, "", 403, "ip_not_allowed"),
        (b"Bearer " + SECRET.encode(), {"ip_allowlist": ("no network",)}, "1.2.3.4", 401, "invalid_api_key"),
    ],
)
def test_who_is_refused(key, authorization, fields, ip, status, code):
    ring = build_key_ring({"k1": key(DIGEST, **fields)})
    with pytest.raises(ApiError) as refused:
        authenticate(ring, authorization, NOW, ip)
    assert (refused.value.status, refused.value.openai_code) == (status, code)
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("authorization", "fields", "ip"),
    [
        (b"Bearer " + SECRET.encode(), {}, "1.2.3.4"),
        (b"bearer  " + SECRET.encode() + b" ", {}, ""),
        (b"Bearer " + SECRET.encode(), {"expires_at": datetime(2027, 1, 1, tzinfo=UTC)}, "1.2.3.4"),
        (b"Bearer " + SECRET.encode(), {"ip_allowlist": ("10.0.0.0/8", "1.2.3.4")}, "1.2.3.4"),
        (b"Bearer " + SECRET.encode(), {"ip_allowlist": ("10.0.0.0/8",)}, "::ffff:10.1.2.3"),
    ],
)
def test_who_is_admitted(key, authorization, fields, ip):
    ring = build_key_ring({"k1": key(DIGEST, **fields)})
    assert authenticate(ring, authorization, NOW, ip).document.id == "k1"


def test_a_malformed_digest_admits_nobody(key):
    assert build_key_ring({"k1": key("not hex")}) == {}


@pytest.mark.parametrize(
    ("scopes", "allowed"), [(("*",), True), (("chat",), True), (("embeddings",), False), ((), False)]
)
def test_scopes(key, scopes, allowed):
    found = build_key_ring({"k1": key(DIGEST, scopes=scopes)})[bytes.fromhex(DIGEST)]
    if allowed:
        require_scope(found, "chat")
    else:
        with pytest.raises(ApiError, match="lacks the scope"):
            require_scope(found, "chat")


def test_model_allow_list(key):
    found = build_key_ring({"k1": key(DIGEST, models=("a",))})[bytes.fromhex(DIGEST)]
    assert found.may_use(frozenset({"a", "b"}))
    assert not found.may_use(frozenset({"b"}))


@pytest.mark.parametrize(
    ("secret", "shown"), [(b"sk-0123456789abcdefgh", "sk-0***efgh"), (b"short", "***"), (b"\xff" * 20, "����***����")]
)
def test_mask(secret, shown):
    assert mask(secret) == shown
