"""Heads of engines' answers. Engines are not trusted more than clients: one reading, or a refusal."""

import re

from cortex_gateway.wire.fields import (
    BadMessageError,
    Field,
    FieldLines,
    Headers,
    headers_of,
    index_of,
    is_chunked,
    occurrences,
    read_length,
    restated,
    tokens,
)
from cortex_gateway.wire.repeats import SAME_LENGTH

MAX_HEADERS = 256
_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")


class AnswerHead:
    """To be read only. `length` is None when chunks or the end of the connection end the body."""

    __slots__ = ("chunked", "fields", "index", "keep_alive", "length", "status")

    def __init__(self, status: int, fields: list[Field], index: dict[bytes, bytes]) -> None:
        self.status = status
        self.fields = fields
        self.index = index
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = False

    @property
    def headers(self) -> Headers:
        """All of them, names in lower case."""
        return headers_of(self.fields)

    def repeated(self, length: int) -> "AnswerHead":
        """The same head with another length of the body; SAME_LENGTH for its own."""
        if length in (SAME_LENGTH, self.length):
            return self
        fields = restated(self.fields, length)
        head = AnswerHead(self.status, fields, index_of(fields))
        head.length = length
        head.keep_alive = self.keep_alive
        return head


def no_answer() -> AnswerHead:
    """Stands for a head while there is none."""
    head = AnswerHead(0, [], {})
    head.length = 0
    return head


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
        lines = head.split(b"\r\n")
        first = lines.pop(0)
        if first == b"HTTP/1.1 200 OK":
            minor, status = 1, 200
        else:
            match = _LINE.fullmatch(first)
            if match is None:
                raise BadMessageError("request_line", "not an HTTP answer")
            minor, status = int(match[1]), int(match[2])
        if len(lines) > MAX_HEADERS:
            raise BadMessageError("too_large", "too many headers")
        fields = self._fields.read(lines)
        index = index_of(fields)
        if len(index) != len(fields):
            _refuse_repetitions(fields)
        return _frame(status, minor, fields, index)


def _refuse_repetitions(fields: list[Field]) -> None:
    for name in (b"content-length", b"transfer-encoding", b"content-type"):
        if occurrences(fields, name) > 1:
            raise BadMessageError("framing", f"more than one {name.decode()} header")


def _frame(status: int, minor: int, fields: list[Field], index: dict[bytes, bytes]) -> AnswerHead:
    head = AnswerHead(status, fields, index)
    coding = index.get(b"transfer-encoding")
    stated = index.get(b"content-length")
    if coding is not None:
        if stated is not None or not minor or not is_chunked(coding):
            raise BadMessageError("framing", "the length of the answer is ambiguous")
        head.chunked = True
    elif stated is not None:
        head.length = read_length(stated)
    if status < 200 or status in (204, 304):
        head.length, head.chunked = 0, False
    connection = index.get(b"connection")
    head.keep_alive = bool(minor) and (connection is None or b"close" not in tokens(connection))
    return head
