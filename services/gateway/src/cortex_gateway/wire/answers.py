"""Heads of engines' answers. Engines are not trusted more than clients: one reading, or a refusal."""

import re
from dataclasses import dataclass

from cortex_gateway.wire.fields import (
    BadMessageError,
    FieldLines,
    Headers,
    is_chunked,
    occurrences,
    read_length,
    tokens,
)

MAX_HEADERS = 256
_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")


@dataclass(slots=True)
class AnswerHead:
    """`length` is None when chunks or the end of the connection end the body."""

    status: int
    headers: Headers
    index: dict[bytes, bytes]
    length: int | None
    chunked: bool
    keep_alive: bool


class AnswerHeads:
    """Reads heads of answers; remembers what engines repeat."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields = FieldLines()

    def read(self, head: bytes) -> AnswerHead:
        """Read a head, given without the empty line that ends it.

        Raises:
            BadMessageError: it is no HTTP/1 head, or could be framed in more than one way.
        """
        first, *lines = head.split(b"\r\n")
        if first == b"HTTP/1.1 200 OK":
            minor, status = 1, 200
        else:
            match = _LINE.fullmatch(first)
            if match is None:
                raise BadMessageError("request_line", "not an HTTP answer")
            minor, status = int(match[1]), int(match[2])
        if len(lines) > MAX_HEADERS:
            raise BadMessageError("too_large", "too many headers")
        headers = self._fields.read(lines)
        index = dict(headers)
        if len(index) != len(headers):
            _refuse_repetitions(headers)
            index = dict(reversed(headers))
        return _frame(status, minor, headers, index)


def _refuse_repetitions(headers: Headers) -> None:
    for name in (b"content-length", b"transfer-encoding", b"content-type"):
        if occurrences(headers, name) > 1:
            raise BadMessageError("framing", f"more than one {name.decode()} header")


def _frame(status: int, minor: int, headers: Headers, index: dict[bytes, bytes]) -> AnswerHead:
    length: int | None = None
    chunked = False
    coding = index.get(b"transfer-encoding")
    stated = index.get(b"content-length")
    if coding is not None:
        if stated is not None or not minor or not is_chunked(coding):
            raise BadMessageError("framing", "the length of the answer is ambiguous")
        chunked = True
    elif stated is not None:
        length = read_length(stated)
    if status < 200 or status in (204, 304):
        length, chunked = 0, False
    connection = index.get(b"connection")
    keep_alive = bool(minor) and (connection is None or b"close" not in tokens(connection))
    return AnswerHead(status, headers, index, length, chunked, keep_alive)
