"""Time as a dependency, so that decisions can be tested without waiting."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """What a service may know of time."""

    def now(self) -> datetime:
        """Wall clock, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and deadlines."""
        ...


class SystemClock:
    """The real clock."""

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)


def next_version(last: int) -> int:
    """Document version of a writer whose store may be wiped: grows strictly, and across restarts of the writer."""
    return max(last + 1, time.time_ns() // 1000)
