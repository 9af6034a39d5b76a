"""Heads of requests: request line, headers, and how long the body is. One reading, or a refusal."""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

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

MAX_TARGET_BYTES = 8 * 1024
LONGEST_KNOWN_LINE = 256
MOST_KNOWN_LINES = 1024

_LINE = re.compile(rb"([A-Z][A-Z-]{0,19}) ([\x21-\x7e]+) HTTP/1\.([01])")
_LINE_BEGIN = re.compile(rb"[A-Z][A-Z-]{0,19}(?: |$)")
_ANY_VERSION = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]+\.[0-9]+")
_ORIGIN_FORM = re.compile(rb"/[!-\"$-~]*")
_ABSOLUTE_FORM = re.compile(rb"https?://[0-9A-Za-z.\-_~%:\[\]]+(/[!-\"$-~]*)?", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_HOST = re.compile(rb"[0-9A-Za-z.\-_~%]*(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?")


class RequestLine(NamedTuple):
    """`target` as it was sent in origin form, `path` decoded."""

    method: str
    target: bytes
    path: str
    minor: int


class HeadMemo:
    """What was found out about a head; its repetitions share it."""

    __slots__ = ("key_digest",)

    def __init__(self) -> None:
        self.key_digest: bytes | None = None
        """Of the key that it showed and that was known."""


class RequestHead:
    """A request that may be acted on, to be read only. `index` holds the first value of every header, `headers` all of
    them, names in lower case."""

    __slots__ = ("chunked", "expects_continue", "fields", "headers", "index", "keep_alive", "length", "line", "memo")

    def __init__(self, line: RequestLine, fields: list[Field], index: dict[bytes, bytes], memo: HeadMemo) -> None:
        self.line = line
        self.fields = fields
        self.index = index
        self.memo = memo
        self.headers: Headers = headers_of(fields)
        self.length = 0
        self.chunked = False
        self.keep_alive = False
        self.expects_continue = False

    def repeated(self, length: int) -> "RequestHead":
        """The same head with another length of the body; SAME_LENGTH for its own."""
        if length in (SAME_LENGTH, self.length):
            return self
        fields = restated(self.fields, length)
        head = RequestHead(self.line, fields, index_of(fields), self.memo)
        head.length = length
        head.keep_alive = self.keep_alive
        head.expects_continue = self.expects_continue
        return head


class RequestHeads:
    """Reads heads of requests; remembers what clients repeat."""

    __slots__ = ("_fields", "_lines", "_max_headers")

    def __init__(self, max_headers: int) -> None:
        self._fields = FieldLines()
        self._lines: dict[bytes, RequestLine] = {}
        self._max_headers = max_headers

    def read(self, head: bytes) -> RequestHead:
        """Read a head, given without the empty line that ends it.

        Raises:
            BadMessageError: it breaks the grammar, or could be framed in more than one way.
        """
        lines = head.split(b"\r\n")
        first = lines.pop(0)
        line = self._lines.get(first) or self._read_line(first)
        if len(lines) > self._max_headers:
            raise BadMessageError("too_large", f"There are more than {self._max_headers} headers.", 431)
        fields = self._fields.read(lines)
        index = index_of(fields)
        if len(index) != len(fields):
            _refuse_repetitions(fields)
        return _frame(line, fields, index)

    def check_beginning(self, part: bytes) -> None:
        """Refuse what cannot become a head any more, so that nobody waits for its end.

        Raises:
            BadMessageError: it does not begin like a request, or a line ends without CRLF.
        """
        line, ended, _ = part.partition(b"\r\n")
        if ended:
            if line not in self._lines:
                self._read_line(line)
        elif _LINE_BEGIN.match(line[:21]) is None or len(line) > MAX_TARGET_BYTES + 40:
            self._read_line(line)
        if part.count(b"\n") != part.count(b"\r\n") or b"\r" in part.replace(b"\r\n", b"").rstrip(b"\r"):
            raise BadMessageError("header", "A line does not end with CRLF.")

    def _read_line(self, line: bytes) -> RequestLine:
        read = read_request_line(line)
        if len(line) <= LONGEST_KNOWN_LINE:
            if len(self._lines) >= MOST_KNOWN_LINES:
                self._lines.clear()
            self._lines[line] = read
        return read


def read_request_line(line: bytes) -> RequestLine:
    """Read method, target and version. Raises BadMessageError."""
    if len(line) > MAX_TARGET_BYTES + 40:
        raise BadMessageError("target", "The request target is too long.", 414)
    match = _LINE.fullmatch(line)
    if match is None:
        if _ANY_VERSION.fullmatch(line):
            raise BadMessageError("version", "This version of HTTP is not spoken here.", 505)
        raise BadMessageError("request_line", "The request line is malformed.")
    method, target = match[1].decode(), match[2]
    if method == "CONNECT":
        raise BadMessageError("request_line", "This is no proxy: CONNECT is not offered.", 405)
    target = _origin_form(method, target)
    path = target.partition(b"?")[0]
    if b"%" in target:
        if _BAD_ESCAPE.search(target):
            raise BadMessageError("target", "The request target holds an invalid percent escape.")
        path = unquote_to_bytes(path)
    return RequestLine(method, target, path.decode("utf-8", "replace"), int(match[3]))


def _origin_form(method: str, target: bytes) -> bytes:
    if _ORIGIN_FORM.fullmatch(target):
        return target
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is not None:
        return absolute[1] or b"/"
    if target == b"*" and method == "OPTIONS":
        return target
    raise BadMessageError("target", "The request target is malformed.")


def _refuse_repetitions(fields: list[Field]) -> None:
    for name in (b"content-length", b"transfer-encoding", b"host", b"authorization", b"expect", b"content-type"):
        if occurrences(fields, name) > 1:
            raise BadMessageError("framing", f"There is more than one {name.decode()} header.")


def _frame(line: RequestLine, fields: list[Field], index: dict[bytes, bytes]) -> RequestHead:
    get = index.get
    host = get(b"host")
    if host is None:
        if line.minor:
            raise BadMessageError("host", "The Host header is missing.")
    elif _HOST.fullmatch(host) is None:
        raise BadMessageError("host", "The Host header is malformed.")
    head = RequestHead(line, fields, index, HeadMemo())
    coding = get(b"transfer-encoding")
    stated = get(b"content-length")
    if coding is not None:
        if stated is not None:
            raise BadMessageError("framing", "Content-Length and Transfer-Encoding exclude each other.")
        if not line.minor or not is_chunked(coding):
            raise BadMessageError("framing", "The only transfer coding spoken here is 'chunked', with HTTP/1.1.")
        head.chunked = True
    elif stated is not None:
        head.length = read_length(stated)
    if b"upgrade" in index:
        _refuse_upgrade(index)
    head.keep_alive = _keeps_alive(get(b"connection"), line.minor)
    head.expects_continue = _expects(get(b"expect"), line.minor)
    return head


def _refuse_upgrade(index: dict[bytes, bytes]) -> None:
    """h2c is offered by ordinary clients and may be ignored; who asks for anything else wants nothing we have."""
    if tokens(index[b"upgrade"]) != [b"h2c"]:
        raise BadMessageError("upgrade", "No other protocol is spoken here.")


def _keeps_alive(connection: bytes | None, minor: int) -> bool:
    """HTTP/1.0 connections end after one answer."""
    if not minor:
        return False
    return connection is None or connection in (b"keep-alive", b"Keep-Alive") or b"close" not in tokens(connection)


def _expects(expect: bytes | None, minor: int) -> bool:
    if expect is None:
        return False
    if expect.lower() != b"100-continue":
        raise BadMessageError("expect", "The expectation is not known.", 417)
    return minor == 1
