"""One request on the direct path: what the engine and the client do next is answered in callbacks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cortex_contracts.enums import UsageOutcome
from cortex_gateway import metrics
from cortex_gateway.attempts import EVENT_STREAM, Sent
from cortex_gateway.begun import Begun
from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Ask
from cortex_gateway.domain.streams import Leveller, StreamGarbageError
from cortex_gateway.domain.usage import Tokens
from cortex_gateway.early_stream import STREAM_HEADERS, error_tail
from cortex_gateway.forwarding import Dispatcher
from cortex_gateway.inference import answering_of
from cortex_gateway.metrics import CLIENT_CLOSED, RouteMetrics
from cortex_gateway.ports import (
    ClientGoneError,
    ClientLine,
    PlainReply,
    Request,
    UpstreamError,
    UpstreamLine,
    UpstreamPool,
    UpstreamResponse,
)
from cortex_gateway.relay import REUSE_WAIT_S, Relay, as_api_error, note_silence, use
from cortex_gateway.running import Running, RunningRequests
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_gateway.traffic import Traffic
from cortex_kit.clock import Clock
from cortex_kit.logging import get_logger

log = get_logger()

_STREAM_LINES = b"".join(b"%b: %b\r\n" % header for header in STREAM_HEADERS)
_JSON = b"application/json"
_HEAD: Final = 0
_WHOLE: Final = 1
_STREAM: Final = 2


Resume = Callable[[Request, PlainReply, Begun], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stations:
    """Who has a part in a request, see `app`."""

    dispatcher: Dispatcher
    pool: UpstreamPool[Any]
    relay: Relay
    books: Bookkeeper
    running: RunningRequests
    traffic: Traffic
    clock: Clock
    max_response_bytes: int


class Client:
    """Who asked: the connection, the way back, and how the request goes on when it needs patience."""

    __slots__ = ("line", "reply", "request", "resume")

    def __init__(self, line: ClientLine, request: Request, reply: PlainReply, resume: Resume) -> None:
        self.line = line
        self.request = request
        self.reply = reply
        self.resume = resume


class DirectRequest:
    """A request that was sent. Its methods are called by the two connections and never raise.

    `phase` says what the engine sends next. Nothing here refers to itself: what ends is freed at once, not by the
    garbage collector.
    """

    __slots__ = (
        "ask",
        "client",
        "ended",
        "exchange",
        "figures",
        "leveller",
        "parts",
        "phase",
        "reply",
        "running",
        "sent",
        "size",
        "stalled",
        "stations",
        "upstream",
    )

    def __init__(self, stations: Stations, exchange: Exchange, ask: Ask, client: Client, figures: RouteMetrics) -> None:
        self.stations = stations
        self.exchange = exchange
        self.ask = ask
        self.client = client
        self.reply = client.reply
        self.figures = figures
        self.parts: list[bytes] | None = None
        self.size = 0
        self.leveller: Leveller | None = None
        self.stalled = self.ended = False
        self.phase = _HEAD
        self.sent: Sent
        self.upstream: UpstreamLine
        self.running: Running

    def begin(self, sent: Sent, upstream: UpstreamLine) -> None:
        """Everything was taken that the request needs: send it."""
        self.sent, self.upstream = sent, upstream
        exchange, stations = self.exchange, self.stations
        stations.traffic.enter()
        sent.fleet.take(sent.target.incarnation)
        sent.figures.selected += 1
        exchange.route, exchange.target, exchange.sent_body = sent.route, sent.target, sent.request.body
        key_id, request_id = exchange.key.id, exchange.correlation_id or exchange.request_id
        self.running = stations.running.enter(key_id, request_id, None, self.interrupt)
        stations.pool.begin(upstream, sent.target.endpoint, sent.request)
        upstream.expect(self.on_progress)
        self.reply.on_gone(self.hang_up)

    def on_progress(self) -> None:
        """Something came from the engine, or nothing more will."""
        try:
            if self.phase == _HEAD:
                self._on_head()
            elif self.phase == _WHOLE:
                self._on_whole()
            else:
                self._on_stream()
        except ClientGoneError:
            self.hang_up()
        except Exception:
            # The boundary of one request: it fails alone, with a trace in the log.
            log.exception("request_failed", request_id=self.exchange.request_id, path=self.exchange.api.path)
            if self.ended:
                # It failed while things were given back: never twice.
                self.client.line.conclude()
            else:
                self._give_up(errors.internal_error())

    def hang_up(self) -> None:
        """The client has left: nobody works for it any more."""
        if self.ended:
            return
        self._interrupted()
        self._end(CLIENT_CLOSED, kept=False)

    def interrupt(self, error: ApiError) -> None:
        """It is to end from outside; `error` is what its client is told."""
        self._interrupted()
        if not self.reply.started:
            self._give_up(error)
            return
        try:
            self.reply.put(error_tail(self.exchange.api.path, error), more=False)
        except ClientGoneError:
            self._end(CLIENT_CLOSED, kept=False)
        else:
            self._end(error.status, kept=False)

    # Steps

    def _on_head(self) -> None:
        upstream = self.upstream
        if not upstream.head_done:
            if upstream.error is not None:
                self._go_on_with(_failed(upstream.error))
            return
        head = upstream.head
        if head.status != 200:
            self._go_on_with(_answered(self.stations.pool.response(self.sent.target.endpoint, upstream)))
            return
        self.stations.dispatcher.note_beginning(self.sent)
        if self.ask.stream and head.index.get(b"content-type", b"").startswith(EVENT_STREAM):
            self.phase = _STREAM
            self._on_stream()
        else:
            self.phase = _WHOLE
            self._on_whole()

    def _on_whole(self) -> None:
        upstream = self.upstream
        body = upstream.take()
        if not upstream.complete or self.parts is not None:
            whole = self._collect(body)
            if whole is None:
                return
            body = whole
        exchange, stations = self.exchange, self.stations
        exchange.first_byte = stations.clock.monotonic()
        answering = answering_of(self.sent.route, self.sent.target, self.ask, self._request_id)
        try:
            body, usage = use(answering.whole, body)
        except ApiError as error:
            self._give_up(error)
            return
        stations.relay.settle_whole(exchange, usage)
        content_type = upstream.head.index.get(b"content-type") or _JSON
        self.reply.begin_plain(b"content-type: %b\r\n%b" % (content_type, self._lines()), len(body))
        self.reply.put(body, more=False)
        self._end(200, kept=True)

    def _collect(self, part: bytes) -> bytes | None:
        """The whole body once it is there."""
        parts, upstream = self.parts, self.upstream
        if parts is None:
            parts = self.parts = []
        parts.append(part)
        self.size += len(part)
        if self.size > self.stations.max_response_bytes:
            self._give_up(errors.engine_lost())
        elif upstream.complete:
            return b"".join(parts)
        elif upstream.error is not None:
            self._give_up(as_api_error(upstream.error))
        else:
            upstream.expect(self.on_progress)
        return None

    def _on_stream(self) -> None:
        upstream = self.upstream
        if self.stalled:
            return
        chunk = upstream.take()
        leveller = self.leveller
        if leveller is None:
            if not chunk and not upstream.complete:
                if upstream.error is not None:
                    self._go_on_with(_failed(upstream.error))
                return
            answering = answering_of(self.sent.route, self.sent.target, self.ask, self._request_id)
            leveller = self.leveller = answering.leveller()
        out = self._level(leveller, chunk)
        if out is None:
            return
        if leveller.done:
            self._finish_stream(leveller, out)
            return
        if out:
            self._start_stream()
            self.reply.put(out, more=True)
            if self.client.line.write_paused:
                self._stall()
                return
        upstream.expect(self.on_progress)
        if upstream.complete or upstream.error is not None:
            self._on_stream()

    def _level(self, leveller: Leveller, chunk: bytes) -> bytes | None:
        """What is for the client, perhaps nothing; the leveller is done when no more may come. None: nothing happened."""
        upstream = self.upstream
        if not chunk:
            if not upstream.complete and upstream.error is None:
                return None
            leveller.fail(errors.engine_lost() if upstream.error is None else as_api_error(upstream.error))
            return b""
        try:
            return leveller.feed(chunk)
        except StreamGarbageError as error:
            leveller.fail(errors.engine_answer_unusable(str(error)))
            return b""

    def _start_stream(self) -> None:
        exchange = self.exchange
        if exchange.first_byte is None:
            exchange.first_byte = self.stations.clock.monotonic()
            self.figures.ttft.observe(exchange.first_byte - exchange.started)
            self.reply.begin_plain(_STREAM_LINES + self._lines(), None)

    def _finish_stream(self, leveller: Leveller, out: bytes) -> None:
        reply, error = self.reply, leveller.error
        if error is not None and not reply.started and not out:
            self._give_up(error)
            return
        self.stations.relay.settle_stream(self.exchange, leveller)
        self._start_stream()
        reply.put(out + leveller.tail(), more=False)
        if error is not None:
            metrics.STREAM_ERRORS.labels(self.sent.target.engine_type).inc()
            note_silence(self.exchange, error)
        self._end(200, kept=error is None)

    def _stall(self) -> None:
        """The client is slow: what the engine sends waits, and the engine with it when it is much."""
        self.stalled = True
        self.upstream.rest()
        self.client.line.await_drain(self._go_on)

    def _go_on(self) -> None:
        self.stalled = False
        self.upstream.expect(self.on_progress)
        self.on_progress()

    # Ends

    @property
    def _request_id(self) -> str:
        return self.exchange.correlation_id or self.exchange.request_id

    def _lines(self) -> bytes:
        """The header lines that say who answered, and what is left of the key's limits."""
        permit = self.exchange.permit
        return b"x-request-id: %b\r\nx-cortex-model: %b\r\n%b" % (
            self._request_id.encode(),
            self.sent.route.label,
            b"" if permit is None else permit.head(),
        )

    def _interrupted(self) -> None:
        if self.leveller is not None:
            self.stations.relay.interrupted(self.exchange, self.leveller, UsageOutcome.CLIENT_DISCONNECTED)
        else:
            self.stations.books.settle_interrupted(
                self.exchange, CLIENT_CLOSED, UsageOutcome.CLIENT_DISCONNECTED, Tokens(estimated=True)
            )

    def _end(self, status: int, *, kept: bool) -> None:
        """The request is settled and answered: give everything back."""
        exchange, stations = self.exchange, self.stations
        self.ended = True
        self._leave_engine(kept=kept)
        stations.running.leave(self.running)
        if exchange.permit is not None:
            exchange.permit.release()
        stations.traffic.leave(self.figures, status, stations.clock.monotonic() - exchange.started)
        self.client.line.conclude()

    def _leave_engine(self, *, kept: bool) -> None:
        sent, upstream = self.sent, self.upstream
        upstream.rest()
        if kept and not upstream.complete:
            _ReadToEnd(self.stations.pool, sent, upstream)
        else:
            self.stations.pool.release(sent.target.endpoint, upstream)
        sent.fleet.give(sent.target.incarnation)
        sent.fleet.gate.leave(sent.fleet.now() - sent.began)

    def _give_up(self, error: ApiError) -> None:
        """Nothing was sent to the client: it has to be told."""
        self._leave_engine(kept=False)
        self._pass_on(Begun(self.exchange, self.ask, self.figures, None, error))

    def _go_on_with(self, outcome: Awaitable[UpstreamResponse]) -> None:
        """The engine refused or failed before its answer began: perhaps it is tried again."""
        self.upstream.rest()
        self._pass_on(Begun(self.exchange, self.ask, self.figures, (self.sent, outcome)))

    def _pass_on(self, begun: Begun) -> None:
        self.ended = True
        self.stations.running.leave(self.running)
        self.stations.traffic.pass_on()
        self.reply.finish()
        client = self.client
        client.line.go_on(lambda: client.resume(client.request, client.reply, begun))


class _ReadToEnd:
    """Lets an engine finish its framing, so that the connection can be used again; not for long."""

    __slots__ = ("_pool", "_sent", "_upstream")

    def __init__(self, pool: UpstreamPool[Any], sent: Sent, upstream: UpstreamLine) -> None:
        self._pool = pool
        self._sent = sent
        self._upstream = upstream
        upstream.expect_end(self._on_progress, REUSE_WAIT_S)

    def _on_progress(self) -> None:
        upstream = self._upstream
        upstream.take()
        if upstream.complete or upstream.error is not None:
            upstream.rest()
            self._pool.release(self._sent.target.endpoint, upstream)


async def _failed(error: UpstreamError) -> UpstreamResponse:
    raise error


async def _answered(response: UpstreamResponse) -> UpstreamResponse:
    return response
