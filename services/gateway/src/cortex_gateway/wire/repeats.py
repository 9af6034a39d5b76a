"""Heads that say the same again: clients and engines repeat theirs on a connection, but for the length of the body."""

from typing import Final

from cortex_gateway.wire.fields import MAX_LENGTH_DIGITS

LONGEST_HEAD: Final = 4096
SAME_LENGTH: Final = -1
_ZERO: Final = 0x30
_NINE: Final = 0x39
_LENGTH: Final = b"\r\ncontent-length:"


class Repeats:
    """Recognises a head that differs from the one before it in nothing but the digits of its Content-Length.

    What it keeps may hold a secret: it belongs to the connection that the secret came on, and goes with it.
    """

    __slots__ = ("_after", "_before", "_matched")

    def __init__(self) -> None:
        self._before = b""
        """All of the head, or what comes before the digits."""
        self._after = b""
        self._matched = True

    def learn(self, head: bytes) -> bool:
        """Take over a head that was read and found good, with the empty line that ends it. False when it is not worth
        that: it is long, or they differ every time."""
        if len(head) > LONGEST_HEAD or not self._matched:
            return False
        self._matched = False
        self._before, self._after = head, b""
        at = head.lower().find(_LENGTH)
        if at >= 0:
            begin = at + len(_LENGTH)
            if head[begin : begin + 1] == b" ":
                begin += 1
            end = head.find(b"\r\n", begin)
            if head[begin:end].isdigit():
                self._before, self._after = head[:begin], head[end:]
        return True

    def match(self, data: bytes) -> tuple[int, int]:
        """Where the head at the beginning of `data` ends, and the length that it states, SAME_LENGTH for that of the
        known one; (0, 0) for another head or for a part of one."""
        before = self._before
        if not before or not data.startswith(before):
            return 0, 0
        at = len(before)
        after = self._after
        if not after:
            self._matched = True
            return at, SAME_LENGTH
        end, length = at, 0
        limit = min(len(data), at + MAX_LENGTH_DIGITS)
        while end < limit and _ZERO <= data[end] <= _NINE:
            length = length * 10 + data[end] - _ZERO
            end += 1
        rest = end + len(after)
        if end == at or data[end:rest] != after:
            return 0, 0
        self._matched = True
        return rest, length
