"""Time-ordered identifiers."""

import os
import time

_LOW = (1 << 62) - 1


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = (time.time_ns() // 1_000_000) & ((1 << 48) - 1)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & _LOW
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
