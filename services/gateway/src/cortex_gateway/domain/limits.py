"""Limits of a key, exact across gateways: how much of a shared counter a gateway may take, and what clients are told.

A gateway adds the units that it wants to a counter and learns its new value: the units below the allowance are its own, the
rest it takes back. The server puts additions in an order, so the grants never overlap and never exceed the allowance.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway.domain.errors import ApiError

WINDOW_S = 60.0
LEASE_S = 0.25
"""A share is what a gateway uses up in this time."""
MAX_LEASE_PART = 20
"""No share is larger than this part of the limit."""
BURST_S = 1.0
"""What a gateway uses up in this time comes in bursts: it holds that much when it is next to nothing of the limit."""
NOTHING_PART = 1000
NEAR_PART = 8
"""Nor than this part of what is left: near the limit shares shrink to what is asked for."""


class Limit(StrEnum):
    """What a key can be limited in."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    BUDGET = "budget"
    STREAMS = "streams"


def granted(value: int, asked: int, allowance: int) -> int:
    """Of `asked` units that brought a counter to `value`: those within the allowance."""
    return max(0, min(asked, allowance - (value - asked)))


def lease_size(need: int, target: int, remaining: int) -> int:
    """How many units to ask for: what requests wait for, and a little ahead while plenty is left."""
    ahead = min(target, remaining // NEAR_PART)
    return max(0, min(max(need, ahead), remaining))


def lease_target(rate: float, limit: int) -> int:
    """Units that a gateway with this rate (per second) wants to hold."""
    return max(min(int(rate * LEASE_S), limit // MAX_LEASE_PART), min(int(rate * BURST_S), limit // NOTHING_PART))


def local_share(limit: int, gateways: int) -> int:
    """What one of several gateways may grant on its own while the counters are out of reach."""
    return max(1, limit // max(1, gateways))


def local_size(limit: int, own: int, left: int | None, gateways: int) -> int:
    """The same of a gateway that has used `own` units: these and its part of what was left, so that all gateways
    together stay within the limit. What it knew of `left` may be old: never more than its own or an equal part."""
    equal = local_share(limit, gateways)
    if left is None:
        return max(own, equal)
    return max(1, min(own + left // max(1, gateways), max(own, equal)))


def local_budget(limit: int, spent: int | None, gateways: int) -> int:
    """The same of a monthly budget: a part of what was left; a thirtieth of the budget when that is not known."""
    left = limit // 30 if spent is None else max(0, limit - spent)
    return left // max(1, gateways)


class RecentUse:
    """Units used within the last minute, by the second: what a gateway can say of itself when counters were lost."""

    __slots__ = ("_newest", "_seconds", "_total")

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        self._newest: list[int] | None = None
        self._total = 0

    def add(self, now: float, units: int) -> None:
        """Count units; negative ones take back."""
        second = int(now)
        newest = self._newest
        if newest is not None and newest[0] >= second:
            newest[1] += units
        else:
            self._newest = newest = [second, units]
            self._seconds.append(newest)
        self._total += units

    def total(self, now: float) -> int:
        """Units of the window that ends now."""
        seconds, oldest = self._seconds, now - WINDOW_S
        while seconds and seconds[0][0] + 1 <= oldest:
            self._total -= seconds.popleft()[1]
        if not seconds:
            self._newest = None
        return max(0, self._total)

    def last(self) -> float | None:
        """When the newest use leaves the window."""
        newest = self._newest
        return None if newest is None else newest[0] + 1 + WINDOW_S


def has_limits(document: KeyDocumentV1) -> bool:
    """True when any limit is set."""
    limits = (
        document.requests_per_minute,
        document.tokens_per_minute,
        document.max_concurrent_streams,
        document.tokens_per_month,
    )
    return any(limit is not None for limit in limits)


MAX_CHOICES = 128


class Need:
    """What a request may cost. `completion` is what it asks for at most, None when it leaves that open; a request that
    generates nothing has no `choices`."""

    __slots__ = ("body_bytes", "choices", "completion")

    def __init__(self, body_bytes: int, completion: int | None = None, choices: int = 1) -> None:
        self.body_bytes = body_bytes
        self.completion = completion
        self.choices = choices

    def tokens(self, default_completion: int) -> int:
        """Four bytes of its body a token, and what it asks the engine for."""
        prompt = self.body_bytes // 4 or 1
        if not self.choices:
            return prompt
        asked = self.completion
        completion = default_completion if asked is None or asked < 1 else asked
        return prompt + (completion if self.choices == 1 else completion * max(1, min(self.choices, MAX_CHOICES)))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands with one limit."""

    limit: int
    remaining: int
    reset_s: float
    """Until nothing of it is used."""


def duration(seconds: float) -> str:
    """A time as OpenAI's headers have it: 12ms, 1.5s, 6m0s."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


_RESETS = tuple(duration(seconds).encode() for seconds in range(int(WINDOW_S) + 1))


class HeaderNames:
    """Names of OpenAI's rate-limit headers of one limit."""

    __slots__ = ("_limit", "_line", "_remaining", "_remaining_line", "_reset", "_reset_line")

    def __init__(self, limit: Limit) -> None:
        name = limit.value.encode()
        self._limit = b"x-ratelimit-limit-" + name
        self._remaining = b"x-ratelimit-remaining-" + name
        self._reset = b"x-ratelimit-reset-" + name
        self._line = self._limit + b": "
        self._remaining_line = b"\r\n" + self._remaining + b": "
        self._reset_line = b"\r\n" + self._reset + b": "

    def headers(self, size: int, remaining: int, reset_s: int) -> list[tuple[bytes, bytes]]:
        """The three headers; `reset_s` until nothing of the limit is used."""
        remaining, reset = _within(size, remaining, reset_s)
        return [
            (self._limit, b"%d" % size),
            (self._remaining, b"%d" % remaining),
            (self._reset, reset),
        ]

    def head(self, size: int, remaining: int, reset_s: int) -> bytes:
        """The same as header lines."""
        remaining, reset = _within(size, remaining, reset_s)
        return b"%b%d%b%d%b%b\r\n" % (self._line, size, self._remaining_line, remaining, self._reset_line, reset)


def _within(size: int, remaining: int, reset_s: int) -> tuple[int, bytes]:
    if not 0 <= remaining <= size:
        remaining = 0 if remaining < 0 else size
    if not 0 <= reset_s < len(_RESETS):
        reset_s = 0 if reset_s < 0 else len(_RESETS) - 1
    return remaining, _RESETS[reset_s]


_PER = {
    Limit.REQUESTS: "requests per min (RPM)",
    Limit.TOKENS: "tokens per min (TPM)",
    Limit.STREAMS: "concurrent streams",
}


def refusal(
    limit: Limit, standing: Standing, asked: int, retry_s: float, headers: list[tuple[bytes, bytes]]
) -> ApiError:
    """The 429 that clients of OpenAI know."""
    if limit is Limit.BUDGET:
        return ApiError(
            429,
            "insufficient_quota",
            "You exceeded your current quota: the monthly token budget of this API key "
            f"({standing.limit}) leaves {max(0, standing.remaining)}, the request may need {asked}. "
            "Ask your administrator for more, or wait for the next month.",
            type_="insufficient_quota",
            retry_after_s=max(1, int(retry_s + 1)),
            headers=headers,
        )
    used = standing.limit - max(0, standing.remaining)
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached for this API key on {_PER[limit]}: Limit {standing.limit}, Used {used}, "
        f"Requested {asked}. Please try again in {duration(retry_s)}.",
        type_=limit.value,
        retry_after_s=max(1, int(retry_s + 0.999)),
        headers=headers,
    )


def month_of(now: datetime) -> str:
    """The calendar month (UTC) that a budget is of: 202611."""
    return now.strftime("%Y%m")


def month_left(now: datetime) -> float:
    """Seconds until the next month begins (UTC)."""
    following = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return (following - now).total_seconds()
