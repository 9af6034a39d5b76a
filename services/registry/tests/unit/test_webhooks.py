"""Webhooks: signatures, what an answer means, which addresses are taken."""

import base64
import hashlib
import hmac
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from cortex_kit.clock import SystemClock
from cortex_kit.secrets import seal
from cortex_registry.adapters.webhooks_http import HttpSender
from cortex_registry.domain.webhooks import (
    AfterFailure,
    Attempt,
    Webhook,
    WebhookPatch,
    WebhookSpecification,
    after_failure,
    decode_secret,
    encode_secret,
    is_public,
    shown_url,
    signature_header,
)
from cortex_registry.handlers.webhooks import Keys, Signer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOCS = Path(__file__).parents[4] / "docs" / "webhooks.md"


def attempt(status: int | None, retry_after_s: float | None = None) -> Attempt:
    return Attempt(NOW, status, 1.0, None, retry_after_s)


def documented_verify() -> Any:
    """The function that the documentation shows."""
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 - our own documentation
    return names["verify"]


def test_the_signature_is_that_of_the_specifications_own_libraries() -> None:
    """Vector of the reference libraries of Standard Webhooks."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    header = signature_header([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_rotated_both_sign_and_either_verifies() -> None:
    key = SecretStr("k" * 32)
    old, new = (encode_secret(bytes([number]) * 32) for number in (1, 2))
    webhook = Webhook("id", 1, "n", "http://h", ("*",), True, None, seal(key, new), seal(key, old), NOW, "a", NOW, NOW)
    rotating = Webhook(*(getattr(webhook, name) for name in Webhook.__dataclass_fields__))
    signer = Signer(Keys(key), SystemClock())
    verify = documented_verify()
    body = b'{"a":1}'
    over = signer.headers(rotating, "m", body)
    assert over["webhook-signature"].count("v1,") == 1
    assert verify(new, over, body)
    assert not verify(old, over, body)
    later = datetime.now(UTC) + timedelta(hours=1)
    from dataclasses import replace  # noqa: PLC0415

    both = signer.headers(replace(webhook, previous_until=later), "m", body)
    assert both["webhook-signature"].count("v1,") == 2
    assert verify(new, both, body)
    assert verify(old, both, body)
    assert not verify(new, both, body + b" ")
    assert not verify(new, both | {"webhook-id": "other"}, body)
    assert not verify(new, both | {"webhook-timestamp": "1"}, body)


def test_secrets_are_of_the_specified_form() -> None:
    secret = encode_secret(b"x" * 32)
    assert secret.startswith("whsec_")
    assert decode_secret(secret) == b"x" * 32
    with pytest.raises(ValueError, match="whsec_"):
        decode_secret("whsec_???")


@pytest.mark.parametrize(
    ("status", "attempts", "failures", "retry_after", "expected"),
    [
        (500, 1, 1, None, AfterFailure(5, None)),
        (400, 2, 9, None, AfterFailure(30, None)),
        (301, 3, 3, None, AfterFailure(120, None)),
        (500, 10, 10, None, AfterFailure(36000, None)),
        (500, 11, 11, None, AfterFailure(None, None)),
        (None, 1, 1, None, AfterFailure(5, 5)),
        (None, 3, 5, None, AfterFailure(120, 80)),
        (None, 11, 40, None, AfterFailure(None, 600)),
        (503, 1, 1, 60, AfterFailure(60, 60)),
        (429, 1, 1, 10**9, AfterFailure(3600, 3600)),
        (410, 1, 1, None, AfterFailure(None, None, gone=True)),
    ],
)
def test_what_follows_from_a_failure(
    status: int | None, attempts: int, failures: int, retry_after: float | None, expected: AfterFailure
) -> None:
    failed = attempt(status, retry_after)
    assert after_failure(failed, attempts=attempts, failures=failures, base_s=5, dice=0.5) == expected


def test_waits_are_spread_and_last_about_a_day() -> None:
    waits = [
        after_failure(attempt(500), attempts=number, failures=1, base_s=5, dice=dice).retry_s
        for dice in (0.0, 1.0)
        for number in range(1, 11)
    ]
    low, high = (sum(wait or 0 for wait in part) for part in (waits[:10], waits[10:]))
    assert 18 * 3600 < low < 24 * 3600 < high < 30 * 3600


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "https://user:password@host/",
        "https://user@host/",
        "http://host/#fragment",
        "http://host/a b",
        "http://host/\r\nX-Evil: 1",
        "http://host:99999/",
        "http://host:0/",
        "http://host:x/",
        "http://[::1/",
        "http://ex\u00e4mple.org/",
        "javascript:alert(1)",
        "//host/",
        "http:\\\\host\\",
        "http://host/" + "x" * 2048,
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        WebhookSpecification(name="n", url=url)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "   "},
        {"name": "x\x00"},
        {"name": "x" * 129},
        {"events": []},
        {"events": ["a b"]},
        {"events": ["*"] * 51},
        {"secret": "whsec_mine"},
        {"enabled": "perhaps"},
        {"enabled": "true"},
        {"enabled": 1},
    ],
)
def test_a_specification_says_what_is_wrong(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookSpecification.model_validate({"name": "n", "url": "http://host/"} | fields)
    with pytest.raises(ValidationError):
        WebhookPatch.model_validate(fields)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_what_follows_the_question_mark_is_not_shown() -> None:
    assert shown_url("https://h/p?token=secret") == "https://h/p?…"


async def test_a_forbidden_address_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are judged by what they resolve to, all of it."""
    asked: list[Any] = []

    class Loop:
        async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            return [(0, 0, 0, "", (address, port)) for address in ("8.8.8.8", "10.0.0.1")]

        def time(self) -> float:
            return 0.0

    sender = HttpSender(clock=SystemClock(), timeout_s=5, allow_private=False, ca_file=None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(500))) as client:
        sender._opened = client
        with monkeypatch.context() as patch:
            patch.setattr("cortex_registry.adapters.webhooks_http.asyncio.get_running_loop", Loop)
            result = await sender.send("https://internal.example/x", {}, b"{}")
    assert asked == ["internal.example"]
    assert result.status is None
    assert "private address" in (result.error or "")


async def test_a_judged_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204, stream=httpx.ByteStream(b""))

    class Loop:
        async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
            return [(socket.AF_INET, 0, 0, "", ("8.8.8.8", port))]

        def time(self) -> float:
            return 0.0

    sender = HttpSender(clock=SystemClock(), timeout_s=5, allow_private=False, ca_file=None)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        sender._opened = client
        monkeypatch.setattr("cortex_registry.adapters.webhooks_http.asyncio.get_running_loop", Loop)
        result = await sender.send("https://rebinding.example:8443/x?y=1", {"webhook-id": "m"}, b"{}")
        monkeypatch.undo()
    assert result.status == 204
    assert str(seen[0].url) == "https://8.8.8.8:8443/x?y=1"
    assert seen[0].headers["host"] == "rebinding.example:8443"
    assert seen[0].extensions["sni_hostname"] == "rebinding.example"
    assert seen[0].headers["webhook-id"] == "m"


def test_the_documented_function_agrees_with_plain_hmac() -> None:
    key = b"k" * 24
    body, timestamp = b"{}", str(int(datetime.now(UTC).timestamp()))
    signature = base64.b64encode(hmac.new(key, f"m.{timestamp}.{{}}".encode(), hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "m", "webhook-timestamp": timestamp, "webhook-signature": f"v1a,x v1,{signature}"}
    assert documented_verify()("whsec_" + base64.b64encode(key).decode(), headers, body)
