"""Time-ordered identifiers."""

import os
import time
from collections import deque

_VARIANT = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
_DIGITS = 19
_AT_ONCE = 64

# The random parts of many identifiers, for which the system is asked at once. Taking one is a single step that no thread shares
# with another, and a forked process begins with none.
_random: deque[str] = deque()
_moment = (-1, "")
"""The millisecond of the last identifier, and how those of it begin."""
os.register_at_fork(after_in_child=_random.clear)


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    try:
        random = _random.popleft()
    except IndexError:
        random = _more()
    global _moment  # noqa: PLW0603 - one assignment of a whole tuple: a thread sees the old one or the new one
    milliseconds = time.time_ns() // 1_000_000
    moment = _moment
    if moment[0] != milliseconds:
        digits = f"{milliseconds:012x}"
        moment = _moment = (milliseconds, f"{digits[:8]}-{digits[8:]}-")
    return moment[1] + random


def _more() -> str:
    digits = os.urandom(_DIGITS * _AT_ONCE).hex()
    parts = (digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
    first, *others = (f"7{part[:3]}-{_VARIANT[part[3]]}{part[4:7]}-{part[7:]}" for part in parts)
    _random.extend(others)
    return first
