"""One HTTP/1.1 connection to an engine, one exchange at a time, on httptools (llhttp)."""

import asyncio
from collections import deque
from typing import cast

import httptools

from cortex_gateway.ports import Failure, Headers, UpstreamError
from cortex_gateway.timers import LazyTimer

MAX_HEAD_BYTES = 64 * 1024
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024


class UpstreamConnection(asyncio.Protocol):
    """Parses answers and hands out body bytes as they come. Reading pauses while too much lies unread."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_framed",
        "_head_bytes",
        "_headers",
        "_idle_timeout_s",
        "_informational",
        "_loop",
        "_parser",
        "_paused",
        "_timeout_s",
        "_timer",
        "_transport",
        "_waiter",
        "alive",
        "answered",
        "complete",
        "error",
        "head_done",
        "idle_since",
        "reusable",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer = LazyTimer(loop, self._on_timeout)
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.alive = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._headers: Headers = []
        self._buffered = 0
        self._head_bytes = 0
        self._framed = False
        self._informational = False
        self._paused = False
        self.answered = False
        self.head_done = False
        self.complete = False
        self.reusable = False
        self.status = 0
        self._timeout_s = self._idle_timeout_s = 0.0
        self.error: UpstreamError | None = None

    # The exchange

    def begin(self, head: bytes, body: bytes) -> None:
        """Send a request. The connection must be idle."""
        self._reset()
        if self._transport is not None:
            self._transport.write(head + body if len(body) < HIGH_WATER else head)
            if len(body) >= HIGH_WATER:
                self._transport.write(body)

    async def wait_head(self, timeout_s: float, idle_timeout_s: float) -> None:
        """Wait for status and headers; raises UpstreamError.

        `timeout_s` holds until the first byte of the body, `idle_timeout_s` between any two reads after it.
        """
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        while not self.head_done:
            await self._wait()

    async def read(self) -> bytes:
        """All body bytes that are there, waiting for some; b"" at the end; raises UpstreamError."""
        chunks = self._chunks
        while not chunks:
            if self.complete:
                return b""
            await self._wait()
        data = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        self._timeout_s = self._idle_timeout_s
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def header(self, name: bytes) -> bytes | None:
        for key, value in self._headers:
            if key == name:
                return value
        return None

    def close(self) -> None:
        """Close at once; what waits fails."""
        self.alive = False
        self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self.error is not None:
            raise self.error
        self._waiter = self._loop.create_future()
        self._timer.arm(self._timeout_s)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._timer.disarm()
        error: UpstreamError | None = self.error
        if error is not None and not self._chunks:
            raise error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: Failure, detail: str) -> None:
        if self.error is None and not self.complete:
            self.error = UpstreamError(failure, detail)
        self.reusable = False
        self.close()
        self._wake()

    def _on_timeout(self) -> None:
        self._fail(Failure.TIMEOUT, f"silent for {self._timeout_s:g} s")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        if self.complete or not self._parse(data):
            # Bytes that no request asked for: whatever they are, this connection is spent.
            self._fail(Failure.BROKEN, "not an HTTP answer")
            return
        if not self.head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(Failure.BROKEN, "the head of the answer is too long")
            return
        if self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _parse(self, data: bytes) -> bool:
        self.answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return self.error is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._timer.cancel()
        if not self.answered:
            self._fail(Failure.NO_ANSWER, "closed without an answer")
        elif self.head_done and not self._framed and exc is None:
            # Neither length nor chunks: the end of the connection is the end of the body.
            self.complete = True
        elif not self.complete:
            self._fail(Failure.BROKEN, "closed in the middle of an answer")
        self._wake()

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self.complete:
            self.error = UpstreamError(Failure.BROKEN, "more than one answer")
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._informational = self.status < 200
        if self._informational:
            self._headers = []
            return
        self._framed = self.header(b"content-length") is not None or self.header(b"transfer-encoding") is not None
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._informational:
            return
        self.complete = True
        self.reusable = self._parser.should_keep_alive() and self.error is None
