"""Time-ordered identifiers."""

import os
import time

_VARIANT = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    moment = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    return f"{moment[:8]}-{moment[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"
