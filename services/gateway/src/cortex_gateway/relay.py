"""Passing an answer on to the client while its usage is read, and settling before its end is sent."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from cortex_contracts.enums import UsageOutcome
from cortex_gateway import metrics
from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Answering
from cortex_gateway.domain.streams import Leveller, StreamGarbageError
from cortex_gateway.domain.usage import Tokens, estimate_tokens
from cortex_gateway.early_stream import STREAM_HEADERS
from cortex_gateway.forwarding import Answer
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import ClientGoneError, Failure, Headers, Reply, UpstreamError, UpstreamResponse
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_kit.clock import Clock

_COMPLETED: Final = UsageOutcome.COMPLETED
REUSE_WAIT_S = 0.25
_JSON = b"application/json"
T = TypeVar("T")


@dataclass(slots=True)
class Delivery:
    """One answer on its way: from where, to whom, for which exchange."""

    exchange: Exchange
    answer: Answer
    reply: Reply
    headers: Headers
    metrics: RouteMetrics


class Relay:
    """Passes whole answers and streams through."""

    def __init__(self, books: Bookkeeper, clock: Clock, *, max_response_bytes: int) -> None:
        self._books = books
        self._clock = clock
        self._max_response_bytes = max_response_bytes

    async def whole(self, delivery: Delivery, answering: Answering) -> None:
        """Pass on an answer that is one JSON document.

        Raises:
            ApiError: the engine broke off or answered garbage; nothing was sent to the client.
        """
        exchange, response = delivery.exchange, delivery.answer.response
        try:
            body = delivery.answer.first + await response.read_all(self._max_response_bytes)
        except UpstreamError as error:
            raise as_api_error(error) from error
        except asyncio.CancelledError:
            self._left_before_an_answer(exchange)
            raise
        exchange.first_byte = self._clock.monotonic()
        body, usage = use(answering.whole, body)
        content_type = response.header(b"content-type") or _JSON
        await self._send_whole(delivery, body, usage, content_type)

    async def gather(self, delivery: Delivery, answering: Answering) -> None:
        """Make one document of a stream, so that the usage of all its choices is known.

        Raises:
            ApiError: the engine broke off or failed; nothing was sent to the client.
        """
        leveller, gathering = answering.gathering()
        try:
            await self._take(delivery.answer, leveller)
        except asyncio.CancelledError:
            self._left_before_an_answer(delivery.exchange)
            raise
        if leveller.error is not None:
            raise leveller.error
        delivery.exchange.first_byte = self._clock.monotonic()
        body, _ = use(answering.whole, gathering.document(leveller.usage or Tokens()))
        await self._send_whole(delivery, body, leveller.usage, _JSON)

    def _left_before_an_answer(self, exchange: Exchange) -> None:
        """Nothing was sent to a client that hung up: it pays for its prompt alone."""
        self._books.settle_interrupted(exchange, 499, UsageOutcome.CLIENT_DISCONNECTED, Tokens(estimated=True))

    async def read(self, answer: Answer, how: Callable[[bytes], T]) -> T:
        """What `how` makes of a whole answer that is not for the client. Raises ApiError."""
        try:
            body = answer.first + await answer.response.read_all(self._max_response_bytes)
        except UpstreamError as error:
            raise as_api_error(error) from error
        return use(how, body)

    async def _take(self, answer: Answer, leveller: Leveller) -> None:
        """Feed a stream to its end, at most as many bytes as an answer may have."""
        chunk, size = answer.first, 0
        try:
            while chunk and not leveller.done:
                size += len(chunk)
                if size > self._max_response_bytes:
                    raise StreamGarbageError(f"it is larger than {self._max_response_bytes} bytes")
                leveller.feed(chunk)
                if not leveller.done:
                    chunk = await answer.response.read()
            if not leveller.done:
                leveller.fail(errors.engine_lost())
        except UpstreamError as error:
            leveller.fail(as_api_error(error))
        except StreamGarbageError as error:
            leveller.fail(errors.engine_answer_unusable(str(error)))
        if leveller.error is None:
            await _read_to_end(answer.response)

    async def _send_whole(self, delivery: Delivery, body: bytes, usage: Tokens | None, content_type: bytes) -> None:
        """Settle, then answer."""
        self.settle_whole(delivery.exchange, usage)
        length = str(len(body)).encode()
        await delivery.reply.start(
            200, [(b"content-type", content_type), (b"content-length", length), *delivery.headers]
        )
        await delivery.reply.send(body, more=False)

    async def stream(self, delivery: Delivery, leveller: Leveller) -> None:
        """Pass on an event stream, chunk by chunk as it comes.

        Raises:
            ApiError: the stream began with an error; nothing was sent to the client.
        """
        response, reply = delivery.answer.response, delivery.reply
        try:
            out = await self._pump(delivery, leveller)
            if leveller.error is not None and not reply.started and not out:
                raise leveller.error
            self.settle_stream(delivery.exchange, leveller)
            if delivery.exchange.first_byte is None:
                await self._start(delivery)
            await reply.send(out + leveller.tail(), more=False)
        except (asyncio.CancelledError, ClientGoneError):
            self.interrupted(delivery.exchange, leveller, UsageOutcome.CLIENT_DISCONNECTED)
            raise
        if leveller.error is not None:
            metrics.STREAM_ERRORS.labels(delivery.answer.target.engine_type).inc()
            note_silence(delivery.exchange, leveller.error)
        else:
            await _read_to_end(response)

    async def _pump(self, delivery: Delivery, leveller: Leveller) -> bytes:
        """Forward until the end marker or a failure; returns the bytes that go out with the tail."""
        response, reply = delivery.answer.response, delivery.reply
        chunk = delivery.answer.first
        while True:
            if not chunk:
                leveller.fail(errors.engine_lost())
                return b""
            try:
                out = leveller.feed(chunk)
                if leveller.done:
                    return out
                if out:
                    if delivery.exchange.first_byte is None:
                        await self._start(delivery)
                    await reply.send(out, more=True)
                chunk = await response.read()
            except UpstreamError as error:
                leveller.fail(as_api_error(error))
                return b""
            except StreamGarbageError as error:
                leveller.fail(errors.engine_answer_unusable(str(error)))
                return b""

    async def _start(self, delivery: Delivery) -> None:
        exchange = delivery.exchange
        exchange.first_byte = self._clock.monotonic()
        delivery.metrics.ttft.observe(exchange.first_byte - exchange.started)
        if not delivery.reply.started:
            await delivery.reply.start(200, [*STREAM_HEADERS, *delivery.headers])

    def settle_whole(self, exchange: Exchange, usage: Tokens | None) -> None:
        """Settle an answer that is there as a whole; without `usage` its prompt is estimated."""
        tokens = usage or Tokens(prompt=estimate_tokens(exchange.sent_body or b""), estimated=True)
        self._books.settle(exchange, 200, _COMPLETED, tokens)

    def settle_stream(self, exchange: Exchange, leveller: Leveller) -> None:
        """Settle a stream that came to an end, good or bad."""
        if leveller.error is not None or leveller.usage is None:
            outcome = _COMPLETED if leveller.error is None else UsageOutcome.UPSTREAM_ERROR
            self.interrupted(exchange, leveller, outcome)
        else:
            self._books.settle(exchange, 200, _COMPLETED, leveller.usage)

    def interrupted(self, exchange: Exchange, leveller: Leveller, outcome: UsageOutcome) -> None:
        """Settle a stream that broke off: by what was sent, unless the engine has said what it used."""
        tokens = leveller.usage or Tokens(completion=leveller.sent_tokens, estimated=True)
        self._books.settle_interrupted(exchange, 200, outcome, tokens)


def use(how: Callable[[bytes], T], body: bytes) -> T:
    """Raises ApiError when the answer has not the form that it must have."""
    try:
        return how(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.engine_answer_unusable(str(error)) from error


def note_silence(exchange: Exchange, error: ApiError) -> None:
    """Count an engine that fell silent in the middle of its answer."""
    route = exchange.route
    if error.code == "engine_timeout" and route is not None:
        metrics.TIMEOUTS.labels(route.model.served_model_name, "silence", exchange.api.path).inc()


def as_api_error(error: UpstreamError) -> ApiError:
    """A failure after the answer had begun, as the client is told."""
    if error.failure is Failure.TIMEOUT:
        return ApiError(504, "engine_timeout", "The engine fell silent in the middle of its answer.")
    return errors.engine_lost()


async def _read_to_end(response: UpstreamResponse) -> None:
    """Let the engine finish its framing, so that the connection can be used again."""
    try:
        async with asyncio.timeout(REUSE_WAIT_S):
            while await response.read():
                pass
    except (UpstreamError, TimeoutError):
        return
