"""Passing an answer on to the client while its usage is read, and settling before its end is sent."""

import asyncio
from dataclasses import dataclass

from cortex_contracts.enums import EngineType, UsageOutcome
from cortex_gateway import metrics
from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.requests import RequestFields, prompt_count
from cortex_gateway.domain.streams import StreamGarbageError, StreamLeveller
from cortex_gateway.domain.usage import Tokens, estimate_tokens, read_usage
from cortex_gateway.forwarding import Answer
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import ClientGoneError, Failure, Headers, Reply, UpstreamError, UpstreamResponse
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_kit.clock import Clock

REUSE_WAIT_S = 0.25
_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_JSON = b"application/json"


@dataclass(frozen=True, slots=True)
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

    async def whole(self, delivery: Delivery) -> None:
        """Pass on an answer that is one JSON document.

        Raises:
            ApiError: the engine broke off; nothing was sent to the client.
        """
        exchange, response = delivery.exchange, delivery.answer.response
        try:
            body = delivery.answer.first + await response.read_all(self._max_response_bytes)
        except UpstreamError as error:
            raise _as_api_error(error) from error
        except asyncio.CancelledError:
            self._books.settle_interrupted(exchange, 499, UsageOutcome.CLIENT_DISCONNECTED, Tokens(estimated=True))
            raise
        exchange.first_byte = self._clock.monotonic()
        tokens = read_usage(body) or Tokens(prompt=estimate_tokens(exchange.sent_body or b""), estimated=True)
        self._books.settle(exchange, 200, UsageOutcome.COMPLETED, tokens)
        content_type = response.header(b"content-type") or _JSON
        length = str(len(body)).encode()
        await delivery.reply.start(
            200, [(b"content-type", content_type), (b"content-length", length), *delivery.headers]
        )
        await delivery.reply.send(body, more=False)

    async def stream(self, delivery: Delivery, leveller: StreamLeveller) -> None:
        """Pass on an event stream, chunk by chunk as it comes.

        Raises:
            ApiError: the stream began with an error; nothing was sent to the client.
        """
        response, reply = delivery.answer.response, delivery.reply
        try:
            out = await self._pump(delivery, leveller)
            if leveller.error is not None and not reply.started and not out:
                raise leveller.error
            self._settle_stream(delivery.exchange, leveller)
            if not reply.started:
                await self._start(delivery)
            await reply.send(out + leveller.tail(), more=False)
        except (asyncio.CancelledError, ClientGoneError):
            self._interrupted(delivery.exchange, leveller, UsageOutcome.CLIENT_DISCONNECTED)
            raise
        if leveller.error is not None:
            metrics.STREAM_ERRORS.labels(delivery.answer.target.engine_type).inc()
        else:
            await _read_to_end(response)

    async def _pump(self, delivery: Delivery, leveller: StreamLeveller) -> bytes:
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
                    if not reply.started:
                        await self._start(delivery)
                    await reply.send(out, more=True)
                chunk = await response.read()
            except UpstreamError as error:
                leveller.fail(_as_api_error(error))
                return b""
            except StreamGarbageError as error:
                leveller.fail(errors.engine_answer_unusable(str(error)))
                return b""

    async def _start(self, delivery: Delivery) -> None:
        exchange = delivery.exchange
        exchange.first_byte = self._clock.monotonic()
        delivery.metrics.ttft.observe(exchange.first_byte - exchange.started)
        await delivery.reply.start(200, [*_STREAM_HEADERS, *delivery.headers])

    def _settle_stream(self, exchange: Exchange, leveller: StreamLeveller) -> None:
        if leveller.error is not None or leveller.usage is None:
            outcome = UsageOutcome.COMPLETED if leveller.error is None else UsageOutcome.UPSTREAM_ERROR
            self._interrupted(exchange, leveller, outcome)
        else:
            self._books.settle(exchange, 200, UsageOutcome.COMPLETED, leveller.usage)

    def _interrupted(self, exchange: Exchange, leveller: StreamLeveller, outcome: UsageOutcome) -> None:
        tokens = leveller.usage or Tokens(completion=_forwarded_tokens(exchange, leveller), estimated=True)
        self._books.settle_interrupted(exchange, 200, outcome, tokens)


def new_leveller(fields: RequestFields, engine_type: EngineType, path: str) -> StreamLeveller:
    """The leveller that a request needs."""
    choices = fields.n or 1
    several = choices > 1 or prompt_count(fields) > 1
    completions = path == "/v1/completions"
    return StreamLeveller(
        wants_usage=fields.wants_usage,
        collect=engine_type is EngineType.LLAMACPP and (several or completions),
        choices_per_prompt=choices,
        per_prompt=completions,
    )


def _forwarded_tokens(exchange: Exchange, leveller: StreamLeveller) -> int:
    """Engines send one token per event; a chat begins with one event that only names the role."""
    return max(0, leveller.events - (1 if exchange.api.scope == "chat" else 0))


def _as_api_error(error: UpstreamError) -> ApiError:
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
