"""One HTTP/1.1 connection to an engine, one exchange at a time, read by the strict grammar of `wire`."""

import asyncio
from collections.abc import Callable
from typing import cast

from cortex_gateway.adapters.bursts import Bursts
from cortex_gateway.ports import Failure, UpstreamError
from cortex_gateway.timers import LazyTimer
from cortex_gateway.wire.answers import AnswerHead, AnswerHeads, no_answer
from cortex_gateway.wire.chunks import ChunkDecoder
from cortex_gateway.wire.fields import BadMessageError
from cortex_gateway.wire.repeats import Repeats

MAX_HEAD_BYTES = 64 * 1024
MAX_INFORMATIONAL = 8
HIGH_WATER = 256 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_NO_HEAD = no_answer()


class UpstreamConnection(asyncio.Protocol):
    """Reads answers and hands out body bytes as they come. Reading pauses while too much lies unread."""

    __slots__ = (
        "_begun",
        "_bodyless",
        "_buffered",
        "_bursts",
        "_chunks",
        "_decoder",
        "_held",
        "_idle_timeout_s",
        "_informational",
        "_known",
        "_left",
        "_loop",
        "_paused",
        "_queued",
        "_reads",
        "_repeats",
        "_timeout_s",
        "_timer",
        "_transport",
        "_waiter",
        "alive",
        "answered",
        "complete",
        "error",
        "head",
        "head_done",
        "idle_since",
        "on_progress",
        "reusable",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, heads: AnswerHeads, bursts: Bursts) -> None:
        self._loop = loop
        self._bursts = bursts
        self._queued = False
        self._reads = heads
        self._repeats = Repeats()
        self._known = _NO_HEAD
        self._timer = LazyTimer(loop, self._on_timeout)
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self.on_progress: Callable[[], None] | None = None
        """Called instead of waking who waits: something came, or nothing more will. It may be called once too often."""
        self.alive = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.head = _NO_HEAD
        self._held: bytes = b""
        self._bodyless = False
        self._chunks.clear()
        self._decoder: ChunkDecoder | None = None
        self._left: int | None = None
        self._buffered = 0
        self._informational = 0
        self._paused = False
        self._begun = False
        self.answered = False
        self.head_done = False
        self.complete = False
        self.reusable = False
        self.error: UpstreamError | None = None

    # The exchange

    def begin(self, head: bytes, body: bytes, timeout_s: float, idle_timeout_s: float) -> None:
        """Send a request. The connection must be idle.

        `timeout_s` holds until the first byte of the body, `idle_timeout_s` between any two reads after it.
        """
        self._reset()
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._bodyless = head.startswith(b"HEAD ")
        if self._transport is not None:
            if len(body) < HIGH_WATER:
                self._transport.write(head + body)
            else:
                self._transport.write(head)
                self._transport.write(body)

    async def read(self) -> bytes:
        """All body bytes that are there, waiting for some; b"" at the end; raises UpstreamError."""
        chunks = self._chunks
        while not chunks:
            if self.complete:
                return b""
            await self.wait()
        return self.take()

    def take(self) -> bytes:
        """All body bytes that are there, without waiting."""
        chunks = self._chunks
        if len(chunks) == 1:
            data = chunks.pop()
        else:
            data = b"".join(chunks)
            chunks.clear()
        self._buffered = 0
        self._begun = True
        self._timeout_s = self._idle_timeout_s
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def expect(self, on_progress: Callable[[], None]) -> None:
        """Call back instead of being waited for, and fail after the time that may pass until then."""
        self.on_progress = on_progress
        self._timer.arm(self._timeout_s)

    def expect_end(self, on_progress: Callable[[], None], within_s: float) -> None:
        """`expect` for what is left of an answer."""
        self.on_progress = on_progress
        self._timeout_s = self._idle_timeout_s = within_s
        self._timer.arm(within_s)

    def rest(self) -> None:
        """Nobody expects anything for the moment: no time runs."""
        self.on_progress = None
        self._timer.disarm()

    @property
    def has_ended(self) -> bool:
        """Everything was read, and the engine means to take another request."""
        return self.alive and self.complete and self.reusable and not self._chunks

    def close(self) -> None:
        """Close at once; what waits fails."""
        self.alive = False
        self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def wait(self) -> None:
        """Wait for something to come; raises UpstreamError when nothing more will."""
        error = self.error
        if error is not None:
            raise error
        self._waiter = self._loop.create_future()
        self._timer.arm(self._timeout_s)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._timer.disarm()
        error = self.error
        if error is not None and not self._chunks:
            raise error

    def _wake(self) -> None:
        if self.on_progress is not None:
            self.on_progress()
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_in_turn(self) -> None:
        self._queued = False
        self._wake()

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
        if self.complete:
            # Bytes that no request asked for: whatever they are, this connection is spent.
            self._fail(Failure.BROKEN, "more than one answer")
            return
        self.answered = True
        try:
            if self.head_done:
                self._read_body(data)
            else:
                self._read_head(data)
        except BadMessageError as error:
            self._fail(Failure.BROKEN, f"not an HTTP answer: {error}")
            return
        if self.head_done:
            if self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
            if not self._begun or not self._chunks or self._bursts.may_go_on():
                # The first bytes of a body, and its end, wait for nobody.
                self._wake()
            elif not self._queued:
                self._queued = True
                self._bursts.await_turn(self._wake_in_turn)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._timer.cancel()
        if not self.answered:
            self._fail(Failure.NO_ANSWER, "closed without an answer")
        elif self.head_done and not self.complete and self._left is None and self._decoder is None and exc is None:
            # Neither length nor chunks: the end of the connection is the end of the body.
            self.complete = True
        elif not self.complete:
            self._fail(Failure.BROKEN, "closed in the middle of an answer")
        self._wake()

    # Reading

    def _read_head(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        else:
            end, length = self._repeats.match(data)
            if end:
                self._take_head(self._known.repeated(length), data[end:])
                return
        end = data.find(_END_OF_HEAD)
        if end > MAX_HEAD_BYTES or (end < 0 and len(data) > MAX_HEAD_BYTES):
            raise BadMessageError("too_large", "the head of the answer is too long")
        if end < 0:
            if data[:5] != b"HTTP/"[: len(data)]:
                raise BadMessageError("request_line", "it does not begin like one")
            self._held = data
            return
        head = self._reads.read(data[:end])
        rest = data[end + 4 :]
        if head.status < 200:
            self._pass_over(head, rest)
            return
        if head.status == 200 and head.keep_alive and not self._bodyless and self._repeats.learn(data[: end + 4]):
            self._known = head
        self._take_head(head, rest)

    def _take_head(self, head: AnswerHead, rest: bytes) -> None:
        self.head = head
        self._left = head.length
        if head.chunked and not self._bodyless:
            self._decoder = ChunkDecoder(extensions=True)
        self.head_done = True
        if head.length == 0 or self._bodyless:
            self._end(rest)
        elif rest:
            self._read_body(rest)

    def _pass_over(self, head: AnswerHead, rest: bytes) -> None:
        """Informational answers say nothing that anybody here asked for."""
        self._informational += 1
        if head.status == 101 or self._informational > MAX_INFORMATIONAL:
            raise BadMessageError("upgrade", f"status {head.status} was not asked for")
        if rest:
            self._read_head(rest)

    def _read_body(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is not None:
            data = decoder.feed(data)
            if data:
                self._add(data)
            if decoder.done:
                self._end(decoder.rest)
            return
        left = self._left
        if left is None:
            self._add(data)
            return
        size = len(data)
        if size > left:
            self._add(data[:left])
            self._end(data[left:])
            return
        self._left = left - size
        self._add(data)
        if size == left:
            self._end(b"")

    def _add(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)

    def _end(self, rest: bytes) -> None:
        """The answer is whole. An engine that sends more than that is not asked again on this connection."""
        self.complete = True
        self.reusable = self.head.keep_alive and not rest and self.error is None
