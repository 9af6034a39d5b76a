"""The way back to one client: heads and bodies framed, backpressure, and what to do when the client leaves."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from cortex_gateway.ports import ClientGoneError, Headers

if TYPE_CHECKING:
    from cortex_gateway.entrypoints.connection import ClientConnection

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, text) for status, text in _PHRASES.items()}
_SIZE_LINES: Final = tuple(b"%x\r\n" % size for size in range(2048))
_CHUNKED = b"transfer-encoding: chunked\r\n"
_CLOSE = b"connection: close\r\n"
_END_OF_LINE = b"\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class UnframedReplyError(Exception):
    """A handler promised another length than it sent, or a header with a line break: a defect, not a condition."""


class ClientReply:
    """`ports.Reply` on a connection. The head leaves together with the first bytes of the body."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_head_only",
        "_left",
        "_on_gone",
        "close",
        "ended",
        "gone",
        "started",
    )

    def __init__(self, connection: "ClientConnection", *, head_only: bool) -> None:
        self._connection = connection
        self._head_only = head_only
        self._head = b""
        self._chunked = False
        self._left: int | None = None
        self._on_gone: Callable[[], object] | None = None
        self.close = False
        self.started = False
        self.ended = False
        self.gone = False

    def watch(self) -> None:
        task = self._connection.task
        if task is not None:
            self.on_gone(task.cancel)

    def on_gone(self, callback: Callable[[], object]) -> None:
        """From now on call back when the client hangs up, once; at once if it has."""
        self._on_gone = callback
        if self.gone:
            callback()

    async def start(self, status: int, headers: Headers) -> None:
        self.begin(status, headers)

    def begin(self, status: int, headers: Headers) -> None:
        """`start`, which never waits."""
        self.started = True
        connection = self._connection
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        expected = 2
        length: bytes | None = None
        close = connection.must_close
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif name == b"connection":
                close = close or value.lower() == b"close"
                continue
            parts += (name, b": ", value, _END_OF_LINE)
            expected += 1
        bodyless = self._head_only or status in (204, 304)
        if length is not None:
            self._left = 0 if bodyless else int(length)
        elif bodyless:
            self._left = 0
        elif connection.speaks_chunks:
            self._chunked = True
            parts.append(_CHUNKED)
            expected += 1
        else:
            close = True
        if close:
            parts.append(_CLOSE)
            expected += 1
        self._head_only = bodyless
        self.close = close
        parts.append(connection.date_line)
        head = b"".join(parts)
        if head.count(b"\n") != expected or head.count(b"\r") != expected:
            raise UnframedReplyError("a header of the answer holds a line break")
        self._head = head

    def begin_plain(self, lines: bytes, length: int | None) -> None:
        """Begin an answer 200 with header lines that are known to be whole; `length` None: it comes in chunks.

        The client speaks HTTP/1.1 and wants more than the head.
        """
        self.started = True
        connection = self._connection
        self.close = close = connection.must_close
        if length is None:
            self._chunked = True
            framing = _CHUNKED
        else:
            self._left = length
            framing = b"content-length: %d\r\n" % length
        self._head = b"HTTP/1.1 200 OK\r\n%b%b%b%b" % (
            lines,
            framing,
            _CLOSE if close else b"",
            connection.date_line,
        )

    async def send(self, chunk: bytes, *, more: bool) -> None:
        self.put(chunk, more=more)
        connection = self._connection
        if connection.write_paused:
            await connection.drained()

    def put(self, chunk: bytes, *, more: bool) -> None:
        """`send` without waiting for a slow client. Raises ClientGoneError."""
        if self.gone:
            raise ClientGoneError
        if self.ended:
            raise UnframedReplyError("the answer had ended")
        chunk = self._framed(chunk, more=more)
        if not more:
            self.ended = True
        if self._head:
            chunk = self._head + b"\r\n" + chunk
            self._head = b""
        if chunk:
            self._connection.write(chunk)

    def _framed(self, chunk: bytes, *, more: bool) -> bytes:
        """`chunk` as it goes over the wire."""
        if self._head_only:
            chunk = b""
        if self._chunked:
            if chunk:
                size = len(chunk)
                line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % size
                chunk = b"%b%b\r\n" % (line, chunk)
            return chunk if more else chunk + _LAST_CHUNK
        if self._left is not None:
            self._count(len(chunk), more=more)
        return chunk

    def _count(self, size: int, *, more: bool) -> None:
        """Hold the answer to the length it stated."""
        left = (self._left or 0) - size
        if left < 0 or (left and not more):
            raise UnframedReplyError("the answer is not as long as it says")
        self._left = left

    def hang_up(self) -> None:
        """The client has left: tell whoever watches."""
        if not self.gone:
            self.gone = True
            if self._on_gone is not None and not self.ended:
                self._on_gone()

    def finish(self) -> None:
        """The request is handled; whatever the client does now is of no interest."""
        self._on_gone = None


def phrase(status: int) -> bytes:
    """What a status is called."""
    return _PHRASES.get(status, b"")
