"""How often a replica failed and when it may be tried again."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """1, 2, 4 ... `max_s` seconds; a run of `stable_s` starts the count anew."""

    first_s: float = 1.0
    max_s: float = 60.0
    stable_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the given number of failures in a row."""
        return min(self.max_s, self.first_s * 2 ** max(0, min(failures, 30) - 1))


@dataclass(frozen=True, slots=True)
class Attempt:
    """The failures of one replica under one spec. `incarnation` is the run that was judged last."""

    spec_hash: str
    failures: int = 0
    restarts: int = 0
    next_attempt_at: datetime | None = None
    incarnation: str | None = None
    problem: str | None = None
    """Code of a problem that no new attempt can solve; it is looked at again whenever the spec is built."""


def after_failure(
    previous: Attempt | None, failure: Attempt, ran_for_s: float, now: datetime, policy: BackoffPolicy
) -> Attempt:
    """The next attempt after a run ended or never began. `failure` carries the spec hash, restarts and incarnation."""
    counts = previous is not None and previous.spec_hash == failure.spec_hash and ran_for_s < policy.stable_s
    failures = (previous.failures if previous is not None and counts else 0) + 1
    return replace(
        failure, failures=failures, next_attempt_at=now + timedelta(seconds=policy.delay_s(failures)), problem=None
    )
