"""Header lines of HTTP/1.1, read by one strict grammar. What it does not know is refused, never repaired."""

import re
from typing import Any, Final, Literal

Headers = list[tuple[bytes, bytes]]

_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(
    rb"(" + _NAME + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_TOKENS = re.compile(rb"[ \t]*,[ \t]*")

LONGEST_KNOWN = 160
MOST_KNOWN = 4096
MAX_LENGTH_DIGITS: Final = 18
MOST_KNOWN_NAMES = 64
"""Of headers whose lines are not remembered."""
_MARKED = bytes(0 if byte == 0x7F or (byte < 0x20 and byte != 0x09) else 1 for byte in range(256))
"""Translates what no value may hold into zeros."""
_NEVER_KNOWN = (b"authorization", b"cookie", b"content-length", b"x-api-key", b"x-request-id", b"traceparent")

Reason = Literal[
    "request_line", "target", "version", "header", "framing", "host", "expect", "too_large", "slow", "upgrade"
]


class BadMessageError(Exception):
    """A message that must not be acted on. `reason` comes from a bounded set, `status` is what its sender is told."""

    def __init__(self, reason: Reason, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.status = status


class Field:
    """One header line: its name in lower case, its value without the white space around it."""

    __slots__ = ("name", "pair", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.pair: Any = (name, value)


def headers_of(fields: list[Field]) -> Headers:
    """Names and values in the order sent."""
    return [field.pair for field in fields]


def restated(fields: list[Field], length: int) -> list[Field]:
    """The same header lines with another Content-Length."""
    stated = Field(b"content-length", b"%d" % length)
    return [stated if field.name == b"content-length" else field for field in fields]


def index_of(fields: list[Field]) -> dict[bytes, bytes]:
    """First value of every header."""
    index: dict[bytes, bytes] = {}
    for field in fields:
        index[field.name] = field.value
    if len(index) != len(fields):
        for field in reversed(fields):
            index[field.name] = field.value
    return index


class FieldLines:
    """Reads header lines. A line that was read before (clients repeat nearly all of theirs) costs one lookup.

    What is remembered is bounded, and never holds a line that names a secret.
    """

    __slots__ = ("_known", "_names")

    def __init__(self) -> None:
        self._known: dict[bytes, Field] = {}
        self._names: dict[bytes, bytes] = {}

    def read(self, lines: list[bytes]) -> list[Field]:
        """The header lines in the order sent.

        Raises:
            BadMessageError: a line is no `name: value`, is folded, or holds a character that no header may have.
        """
        known = self._known
        fields: list[Field] = []
        for line in lines:
            field = known.get(line)
            fields.append(self._read_line(line) if field is None else field)
        return fields

    def _read_line(self, line: bytes) -> Field:
        colon = line.find(b":")
        lowered = self._names.get(line[: max(0, colon)])
        if lowered is not None:
            value = line[colon + 1 :]
            if b"\0" not in value.translate(_MARKED):
                return Field(lowered, value.strip(b" \t"))
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadMessageError("header", "A header line is malformed.")
        field = Field(match[1].lower(), match[2])
        if len(line) <= LONGEST_KNOWN and field.name not in _NEVER_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[line] = field
        elif len(match[1]) <= LONGEST_KNOWN and len(self._names) < MOST_KNOWN_NAMES:
            self._names[match[1]] = field.name
        return field


def read_length(value: bytes) -> int:
    """A Content-Length. Raises BadMessageError for anything but digits."""
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise BadMessageError("framing", "Content-Length is not a number.")
    return int(value)


def is_chunked(value: bytes) -> bool:
    """True for the only transfer coding spoken here."""
    return value.lower() == b"chunked"


def tokens(value: bytes) -> list[bytes]:
    """Members of a comma-separated list, in lower case."""
    return _TOKENS.split(value.lower())


def occurrences(fields: list[Field], name: bytes) -> int:
    """How often a header was sent."""
    return len([field for field in fields if field.name == name])
