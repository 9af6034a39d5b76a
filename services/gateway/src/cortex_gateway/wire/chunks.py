"""The chunked transfer coding, decoded strictly and incrementally."""

import re
from typing import Final

from cortex_gateway.wire.fields import BadMessageError, FieldLines

MAX_LINE_BYTES = 256
MAX_TRAILER_BYTES = 8 * 1024
_LONGEST_SIZE: Final = 8
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_SIZE_AND_EXTENSION = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*;[\t\x20-\x7e]*")

_HEAD: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_CR: Final = 0x0D
_LF: Final = 0x0A
_ZERO: Final = 0x30
_NINE: Final = 0x39
_LOWER: Final = 0x20
_A: Final = 0x61
_F: Final = 0x66


class ChunkDecoder:
    """Takes bytes as they come, gives data as it is found.

    Args:
        extensions: whether chunk extensions are skipped (RFC 9112, 7.1.1) or refused.
    """

    __slots__ = ("_extensions", "_held", "_left", "_state", "_trailer_bytes", "done", "rest")

    def __init__(self, *, extensions: bool) -> None:
        self._extensions = extensions
        self._held = b""
        self._left = 0
        self._state = _HEAD
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""
        """What came after the last chunk."""

    def feed(self, data: bytes) -> bytes:
        """Data of the chunks in `data`, joined.

        Raises:
            BadMessageError: the coding is broken; nothing more may be fed.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        if self._state == _HEAD and (whole := _whole_chunk(data)):
            return whole
        parts: list[bytes] = []
        position = 0
        end = len(data)
        while position < end and not self.done:
            if self._state == _DATA:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                parts.append(part)
                if not self._left:
                    self._state = _DATA_END
                continue
            following = self._feed_line(data, position)
            if following < 0:
                self._hold(data[position:])
                break
            position = following
        if self.done:
            self.rest = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _feed_line(self, data: bytes, position: int) -> int:
        """Read what ends with CRLF; where it ends, or -1 when more has to come."""
        if self._state == _DATA_END:
            if len(data) - position < 2 and data[position : position + 1] == b"\r":
                return -1
            if data[position : position + 2] != b"\r\n":
                raise BadMessageError("framing", "A chunk is longer than it says.")
            self._state = _HEAD
            return position + 2
        found = data.find(b"\r\n", position)
        if found < 0:
            return -1
        line = data[position:found]
        if self._state == _HEAD:
            self._begin_chunk(line)
        else:
            self._end_trailer(line)
        return found + 2

    def _begin_chunk(self, line: bytes) -> None:
        if _SIZE.fullmatch(line) is None:
            match = _SIZE_AND_EXTENSION.fullmatch(line)
            if match is None or not self._extensions or len(line) > MAX_LINE_BYTES:
                raise BadMessageError("framing", "A chunk does not begin with its size.")
            line = match[1]
        self._left = int(line, 16)
        self._state = _DATA if self._left else _TRAILER

    def _end_trailer(self, line: bytes) -> None:
        """Trailers are checked and dropped: nothing that comes after a body may change what came before it."""
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise BadMessageError("too_large", "The trailers are too long.", 431)
        FieldLines().read([line])

    def _hold(self, part: bytes) -> None:
        limit = MAX_TRAILER_BYTES if self._state == _TRAILER else MAX_LINE_BYTES
        if len(part) > limit or b"\n" in part or b"\r" in part[:-1]:
            raise BadMessageError("framing", "A line of the chunked coding is malformed.")
        if self._state == _HEAD and part[:1] not in b"0123456789abcdefABCDEF\r":
            raise BadMessageError("framing", "A chunk does not begin with its size.")
        self._held = part


def _whole_chunk(data: bytes) -> bytes:
    """The data of the one chunk that `data` is, which is how engines send their events; empty when it is anything else."""
    at = size = 0
    last = len(data) - 1
    while at < last and at <= _LONGEST_SIZE:
        byte = data[at]
        if _ZERO <= byte <= _NINE:
            size = size * 16 + byte - _ZERO
        else:
            byte |= _LOWER
            if not _A <= byte <= _F:
                break
            size = size * 16 + byte - _A + 10
        at += 1
    if not 0 < at <= _LONGEST_SIZE or at >= last or data[at] != _CR or data[at + 1] != _LF:
        return b""
    end = at + 2 + size
    if end + 1 != last or data[end] != _CR or data[last] != _LF:
        return b""
    return data[at + 2 : end]
