"""Webhooks: what one is, how a request is signed, what an answer means, when to try again.

Signing follows the Standard Webhooks specification 1.0.0 (https://www.standardwebhooks.com).
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from cortex_kit.errors import DomainError
from cortex_registry.domain.eventlog import check_patterns
from cortex_registry.domain.text import require_storable

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
TEST_TYPE = "webhook.test.v1"
MAX_URL = 2048
RETRY_AFTER_MAX_S = 3600.0
GONE = 410
_THROTTLED = frozenset({429, 502, 503, 504})
_SCHEDULE = (1, 6, 24, 120, 360, 720, 1440, 2880, 4320, 7200)
"""Waits before the second and each further attempt, in units of the base (5 s): 5 s, 30 s, 2 min … 10 h; a day in all."""
_PAUSE_MAX = 120
"""Longest pause of an endpoint that is down, in units of the base: 10 minutes."""
_JITTER = 0.2
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_BAD_URL = re.compile(r"[\x00-\x20\x7f\\]")


class DeliveryStatus(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after the last attempt."""
    CANCELLED = "cancelled"
    """The webhook was switched off, or the event has left the log."""


class DeliveryKind(StrEnum):
    EVENT = "event"
    REDELIVERY = "redelivery"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Health:
    """What the dispatcher has seen of an endpoint."""

    cursor: int = 0
    failing_since: datetime | None = None
    failures: int = 0
    paused_until: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_error: str | None = None
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A stored webhook. Secrets are sealed."""

    id: str
    version: int
    name: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    secret_sealed: str
    previous_secret_sealed: str | None
    previous_until: datetime | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    health: Health = Health()

    def sealed_secrets(self, now: datetime) -> tuple[str, ...]:
        """Those that sign now, the present one first."""
        if self.previous_secret_sealed is None or self.previous_until is None or self.previous_until <= now:
            return (self.secret_sealed,)
        return (self.secret_sealed, self.previous_secret_sealed)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request."""

    at: datetime
    status: int | None
    duration_ms: float
    error: str | None
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """A 2xx answer; anything else is a failure, a redirect too."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook."""

    id: int
    webhook_id: str
    kind: DeliveryKind
    sequence: int | None
    event_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime
    created_at: datetime
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class AfterFailure:
    """What follows from a failed attempt.

    Args:
        retry_s: wait before this delivery is tried again; None: given up.
        pause_s: wait before anything is sent to the endpoint, because it is down or asks for it.
        gone: the endpoint said that it wants nothing more.
    """

    retry_s: float | None
    pause_s: float | None
    gone: bool = False


def after_failure(attempt: Attempt, *, attempts: int, failures: int, base_s: float, dice: float) -> AfterFailure:
    """Decide after a failed attempt.

    Args:
        attempts: attempts of this delivery, this one included.
        failures: failed attempts in a row at this endpoint, this one included.
        base_s: first wait.
        dice: a random number from 0 to 1; spreads the waits by a fifth either way.
    """
    if attempt.status == GONE:
        return AfterFailure(None, None, gone=True)
    spread = 1 - _JITTER + 2 * _JITTER * dice
    asked = min(attempt.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
    retry = None if attempts > len(_SCHEDULE) else max(asked, _SCHEDULE[attempts - 1] * base_s * spread)
    down = attempt.status is None or attempt.status in _THROTTLED
    pause = max(asked, min(2 ** min(failures - 1, 20), _PAUSE_MAX) * base_s * spread) if down else None
    return AfterFailure(retry, pause)


def encode_secret(key: bytes) -> str:
    """As it is shown: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def decode_secret(secret: str) -> bytes:
    """Inverse of `encode_secret`.

    Raises:
        ValueError: not base64.
    """
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error


def signature_header(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature`: one signature per secret, so that a receiver may change its own in between."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.new(decode_secret(secret), signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    )


def check_url(url: str) -> str:
    """The address as it is stored.

    Raises:
        ValueError: not http(s), without a host, with a user name, or with characters that no address has.
    """
    if _BAD_URL.search(url) or not url.isascii():
        raise ValueError("must be an address in plain ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://host/… or https://host/…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user name or password")
    if parts.fragment:
        raise ValueError("must hold no fragment")
    if parts.port == 0:
        raise ValueError("must name a port from 1 to 65535")
    return url


def shown_url(url: str) -> str:
    """The address for logs and the audit log: what follows `?` may be a secret of the receiver."""
    return url.split("?", 1)[0] + ("?…" if "?" in url else "")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _embedded(ip) or ip
    return ip.is_global and not ip.is_multicast


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that one of IPv6 stands for: mapped, 6to4, NAT64."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _checked_events(events: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return check_patterns(events)
    except DomainError as error:
        raise ValueError(error.message) from error


def _name(name: str) -> str:
    require_storable(name)
    if not name.strip():
        raise ValueError("must not be blank")
    return name.strip()


_Events = Annotated[
    tuple[str, ...],
    Field(
        min_length=1,
        max_length=50,
        description="Event types; `*` is one word, `*` alone is everything. Progress (container.pulling, gguf.merging) "
        "comes to those only who name it.",
        examples=[["model.state_changed", "container.failed", "upstream.*"]],
    ),
    AfterValidator(_checked_events),
]
_Url = Annotated[
    str,
    Field(min_length=1, max_length=MAX_URL, examples=["https://example.org/hooks/cortex"]),
    AfterValidator(check_url),
]
_Name = Annotated[str, Field(min_length=1, max_length=128, examples=["pager"]), AfterValidator(_name)]


class WebhookSpecification(BaseModel):
    """What an administrator says of a webhook."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    url: _Url
    events: _Events = ("*",)
    enabled: StrictBool = True


class WebhookPatch(BaseModel):
    """Fields to replace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name | None = None
    url: _Url | None = None
    events: _Events | None = None
    enabled: StrictBool | None = None
