"""One request for an engine: decode, find a replica, pass the answer on, settle."""

import asyncio
from dataclasses import dataclass

from cortex_contracts.enums import UsageOutcome
from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey, require_scope
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling import check_request, prepare_body
from cortex_gateway.domain.requests import ApiRoute, RequestFields, check_task, decode_request
from cortex_gateway.domain.routing import Route, Target
from cortex_gateway.domain.usage import Tokens
from cortex_gateway.forwarding import Call, Dispatcher
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import ClientGoneError, Reply, Request, UpstreamRequest
from cortex_gateway.projection import Projection
from cortex_gateway.relay import Delivery, Relay, new_leveller
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_kit.clock import Clock

CLIENT_CLOSED = 499


@dataclass(frozen=True, slots=True)
class Inference:
    """A request for an engine whose sender is known."""

    request: Request
    reply: Reply
    api: ApiRoute
    key: ApiKey
    own_id: str
    request_id: str
    metrics: RouteMetrics


class InferenceHandler:
    """Takes requests whose sender is known through to their settlement."""

    def __init__(
        self, projection: Projection, dispatcher: Dispatcher, relay: Relay, books: Bookkeeper, clock: Clock
    ) -> None:
        self._projection = projection
        self._dispatcher = dispatcher
        self._relay = relay
        self._books = books
        self._clock = clock

    async def run(self, inference: Inference) -> int:
        require_scope(inference.key, inference.api.scope)
        body = await inference.request.read_body()
        inference.reply.watch()
        fields = decode_request(body)
        exchange = self._new_exchange(inference, fields)
        call = Call(
            model=fields.model,
            stream=bool(fields.stream) and inference.api.streams,
            request_id=inference.request_id,
            metrics=inference.metrics,
            prepare=lambda route, target: _prepare(route, target, inference, fields, body),
        )
        try:
            return await self._forward(inference, exchange, call, fields)
        except ApiError as error:
            outcome = UsageOutcome.UPSTREAM_ERROR if error.status >= 500 else UsageOutcome.REJECTED
            _note(exchange, call)
            self._books.settle(exchange, error.status, outcome, Tokens())
            raise
        except (asyncio.CancelledError, ClientGoneError):
            _note(exchange, call)
            tokens = None if call.sent is None else Tokens(estimated=True)
            self._books.settle_interrupted(exchange, CLIENT_CLOSED, UsageOutcome.CLIENT_DISCONNECTED, tokens)
            raise

    async def _forward(self, inference: Inference, exchange: Exchange, call: Call, fields: RequestFields) -> int:
        route = self._projection.table.find(fields.model)
        if route is None:
            raise errors.model_not_found(fields.model)
        exchange.route = route
        if not inference.key.may_use(route.names):
            raise errors.model_not_allowed(fields.model)
        check_task(inference.api, fields.model, route.task)
        answer = await self._dispatcher.open(call)
        try:
            _note(exchange, call)
            delivery = Delivery(
                exchange, answer, inference.reply, [(b"x-request-id", inference.request_id.encode())], call.metrics
            )
            if answer.is_stream:
                leveller = new_leveller(fields, answer.target.engine_type, inference.api.path)
                await self._relay.stream(delivery, leveller)
            else:
                await self._relay.whole(delivery)
        finally:
            answer.close()
        return 200

    def _new_exchange(self, inference: Inference, fields: RequestFields) -> Exchange:
        return Exchange(
            request_id=inference.own_id,
            correlation_id=inference.request_id,
            api=inference.api,
            key=inference.key,
            model=fields.model[:256],
            stream=bool(fields.stream) and inference.api.streams,
            started_at=self._clock.now(),
            started=self._clock.monotonic(),
        )


def _prepare(route: Route, target: Target, inference: Inference, fields: RequestFields, body: bytes) -> UpstreamRequest:
    """The engine's form of the request; raises ApiError when this engine cannot do what it asks."""
    check_request(route.engine_type, fields)
    streaming = bool(fields.stream) and inference.api.streams
    model = route.model
    own_name = fields.model if fields.model in route.adapters else model.served_model_name
    served_name = target.served_name or own_name
    return UpstreamRequest(
        path=inference.api.upstream_path,
        body=prepare_body(body, fields, served_name, route.defaults, streaming=streaming),
        first_byte_timeout_s=model.request_timeout_s,
        idle_timeout_s=model.stream_timeout_s,
        extra_head=b"x-request-id: " + inference.request_id.encode() + b"\r\n",
    )


def _note(exchange: Exchange, call: Call) -> None:
    """Carry over what forwarding found out."""
    if call.route is not None:
        exchange.route = call.route
    exchange.target = call.target
    exchange.sent_body = None if call.sent is None else call.sent.body
