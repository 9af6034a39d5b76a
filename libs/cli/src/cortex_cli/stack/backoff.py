"""When a process that died is started again. Pure."""

from dataclasses import dataclass

DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_AFTER_S = 15.0
"""A process that lived this long starts again from the shortest delay."""
GIVE_UP_AFTER = 5
"""Deaths in a row of a process that was never ready before the start is called failed."""


@dataclass(frozen=True, slots=True)
class Restart:
    """What to do about one death."""

    delay_s: float
    streak: int
    give_up: bool
    reason: str


def decide(*, streak: int, uptime_s: float, how: str, was_ready: bool) -> Restart:
    """Decide on the death of a process.

    Args:
        streak: deaths in a row before this one.
        uptime_s: how long it lived this time.
        how: how it ended, e.g. `describe_exit(code)`.
        was_ready: whether it was ready at any time since `cortex up`; only one that never was is given up.
    """
    deaths = 1 if uptime_s >= STABLE_AFTER_S else streak + 1
    delay = DELAYS_S[min(deaths, len(DELAYS_S)) - 1]
    return Restart(
        delay_s=delay,
        streak=deaths,
        give_up=not was_ready and deaths >= GIVE_UP_AFTER,
        reason=f"{how} after {uptime_s:.1f} s",
    )


def describe_exit(code: int) -> str:
    """In words what asyncio reports: a negative code is the signal that killed the process."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
