"""How guessing is slowed down: by user name and by address, each failure costing twice the time of the one before."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_registry.domain.users import name_key


@dataclass(frozen=True, slots=True)
class Attempts:
    """What is remembered of a user name or of an address."""

    failures: int
    last_at: datetime
    blocked_until: datetime | None


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """After `free` failures each further one blocks for `base_s`, doubled each time, at most `longest_s`.

    Failures older than `window_s` are forgotten.
    """

    free: int
    base_s: float
    longest_s: float
    window_s: float


def user_subject(username: str) -> str:
    """What the failures of a user name are kept under; the same for every spelling of it."""
    return f"user:{name_key(username)[:256]}"


def address_subject(address: str | None) -> str:
    """What the failures of an address are kept under: an IPv6 client has a whole /64 to choose from."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return "address:unknown"
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return f"address:{known.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((known, 64), strict=False)}"
    return f"address:{known}"


def blocked_for(attempts: Attempts | None, now: datetime) -> float:
    """Seconds until another attempt is allowed; 0 when it is."""
    if attempts is None or attempts.blocked_until is None:
        return 0.0
    return max(0.0, (attempts.blocked_until - now).total_seconds())


def attempted(attempts: Attempts | None, policy: ThrottlePolicy, now: datetime) -> Attempts:
    """The memory with one more attempt, which counts as failed until it turns out right."""
    remembered = attempts is not None and (now - attempts.last_at).total_seconds() <= policy.window_s
    failures = attempts.failures + 1 if attempts is not None and remembered else 1
    beyond = failures - policy.free
    if beyond <= 0:
        return Attempts(failures, now, None)
    delay = min(policy.longest_s, policy.base_s * 2.0 ** min(beyond - 1, 30))
    return Attempts(failures, now, now + timedelta(seconds=delay))
