"""When a slow request is sent to a second replica, too. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

WINDOW = 200
MIN_SAMPLES = 20
REFRESH_EVERY = 20


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """`fixed`: after `after_s`; `p95`: after what 95 of 100 answers took to begin, but not before `after_s`."""

    mode: Literal["off", "fixed", "p95"] = "off"
    after_s: float = 1.0


class Beginnings:
    """How long the last answers of a model took to begin."""

    __slots__ = ("_known", "_p95", "_since")

    def __init__(self) -> None:
        self._known: deque[float] = deque(maxlen=WINDOW)
        self._p95: float | None = None
        self._since = 0

    def note(self, seconds: float) -> None:
        self._known.append(seconds)
        self._since += 1
        if self._since >= REFRESH_EVERY and len(self._known) >= MIN_SAMPLES:
            self._since = 0
            self._p95 = sorted(self._known)[int(len(self._known) * 0.95)]

    def delay_s(self, policy: HedgePolicy) -> float | None:
        """Seconds until a second attempt; None for never."""
        if policy.mode == "off":
            return None
        if policy.mode == "fixed":
            return policy.after_s
        return None if self._p95 is None else max(policy.after_s, self._p95)
