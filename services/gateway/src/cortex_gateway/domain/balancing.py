"""What may be tried, and how often: passive breakers and the retry budget."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Opens after `failures` consecutive failures to connect; lets one request through after `cooldown_s`."""

    failures: int = 3
    cooldown_s: float = 2.0
    gone_cooldown_s: float = 0.25
    """After a connection that was refused or closed without an answer, which opens it at once. Doubles up to
    `cooldown_s`: a replica that was killed is left alone, one that starts again is soon found."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed while `open_until` is None; otherwise open until then, then half-open: one probe at a time."""

    consecutive: int = 0
    open_until: float | None = None
    probe_until: float = 0.0
    gone: int = 0
    """How often in a row nobody seemed to be there."""


CLOSED = Breaker()


def allows(breaker: Breaker, now: float) -> bool:
    """True when a request may be sent to the replica."""
    if breaker.open_until is None:
        return True
    return now >= breaker.open_until and now >= breaker.probe_until


def next_chance(breaker: Breaker, now: float) -> float:
    """When the replica may be tried (again)."""
    return now if breaker.open_until is None else max(breaker.open_until, breaker.probe_until)


def on_attempt(breaker: Breaker, now: float, policy: BreakerPolicy) -> Breaker:
    """A request is about to be sent. In the half-open state it reserves the probe."""
    if breaker.open_until is None:
        return breaker
    return replace(breaker, probe_until=now + policy.cooldown_s)


def on_failure(breaker: Breaker, now: float, policy: BreakerPolicy, *, gone: bool = False) -> Breaker:
    """The replica could not be reached; `gone` when nobody seems to be there."""
    consecutive = breaker.consecutive + 1
    if gone:
        times = breaker.gone + 1
        cooldown = min(policy.cooldown_s, policy.gone_cooldown_s * 2 ** min(times - 1, 16))
        return Breaker(consecutive, open_until=now + cooldown, gone=times)
    if consecutive < policy.failures:
        return Breaker(consecutive)
    return Breaker(consecutive, open_until=now + policy.cooldown_s)


@dataclass(slots=True)
class RetryBudget:
    """Retries as a share of requests, so that retrying never multiplies the load of an outage.

    Each request deposits `ratio`; each retry takes one; the balance is never above `ceiling`.
    """

    ratio: float = 0.2
    ceiling: float = 20.0
    balance: float = 20.0

    def deposit(self) -> None:
        if self.balance < self.ceiling:
            self.balance = min(self.ceiling, self.balance + self.ratio)

    def withdraw(self) -> bool:
        """False when the budget is spent."""
        if self.balance < 1.0:
            return False
        self.balance -= 1.0
        return True
