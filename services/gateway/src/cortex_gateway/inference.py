"""One request for an engine: decode, find a replica, pass the answer on, settle."""

import asyncio
import dataclasses
import functools
from dataclasses import dataclass
from datetime import datetime

from cortex_contracts.enums import UsageOutcome
from cortex_gateway.begun import Begun
from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey, require_scope
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Answering, Ask, engine_body, read_ask
from cortex_gateway.domain.levelling.engine_errors import TokensOverContextError
from cortex_gateway.domain.levelling.tokens import MESSAGES_PATH, needs_template, read_rendered, template_body
from cortex_gateway.domain.request_fields import NULL
from cortex_gateway.domain.requests import ApiRoute, check_task
from cortex_gateway.domain.routing import Route, Target
from cortex_gateway.domain.usage import Tokens
from cortex_gateway.early_stream import end_with, ping
from cortex_gateway.fleet import SESSION_HEADER, Affinity
from cortex_gateway.forwarding import Answer, Call, Dispatcher
from cortex_gateway.limiter import Limiter
from cortex_gateway.metrics import CLIENT_CLOSED, RouteMetrics
from cortex_gateway.ports import ClientGoneError, Headers, Reply, Request, UpstreamRequest
from cortex_gateway.projection import Projection
from cortex_gateway.relay import Delivery, Relay
from cortex_gateway.running import RunningRequests, deadline_of
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_gateway.tracing import RequestTracer


@dataclass(slots=True)
class Inference:
    """A request for an engine whose sender is known, and when it came."""

    request: Request
    reply: Reply
    api: ApiRoute
    key: ApiKey
    own_id: str
    request_id: str
    metrics: RouteMetrics
    started_at: datetime
    started: float


class InferenceHandler:
    """Takes requests whose sender is known through to their settlement."""

    def __init__(  # noqa: PLR0913 - the stations of a request
        self,
        projection: Projection,
        dispatcher: Dispatcher,
        relay: Relay,
        books: Bookkeeper,
        *,
        limiter: Limiter | None = None,
        tracer: RequestTracer | None = None,
        default_max_tokens: int = 0,
    ) -> None:
        self._limiter = limiter
        self._tracer = tracer or RequestTracer(None)
        self._projection = projection
        self._dispatcher = dispatcher
        self._relay = relay
        self._books = books
        self.running = RunningRequests()
        self._default_max_tokens = default_max_tokens

    async def run(self, inference: Inference) -> int:
        if inference.api.scope:
            require_scope(inference.key, inference.api.scope)
        body = await inference.request.read_body()
        inference.reply.watch()
        ask = read_ask(inference.api, body, self._default_max_tokens)
        exchange = self._new_exchange(inference, ask)
        return await self._carry(inference, exchange, _call(inference, ask, exchange), ask)

    async def resume(self, request: Request, reply: Reply, begun: Begun) -> int:
        """`run` for what the direct path began: its sender is known, its body read, its first attempt made."""
        reply.watch()
        exchange, ask = begun.exchange, begun.ask
        inference = Inference(
            request,
            reply,
            exchange.api,
            exchange.key,
            exchange.request_id,
            exchange.correlation_id or exchange.request_id,
            begun.metrics,
            exchange.started_at,
            exchange.started,
        )
        call = _call(inference, ask, exchange)
        call.begun = begun.attempt
        call.target, call.route = exchange.target, exchange.route
        return await self._carry(inference, exchange, call, ask, begun.error)

    async def _carry(
        self, inference: Inference, exchange: Exchange, call: Call, ask: Ask, failed: ApiError | None = None
    ) -> int:
        running = self.running.enter(call.key_id, call.request_id, deadline_of(inference.request))
        try:
            if failed is not None:
                raise failed
            return await self._forward(inference, exchange, call, ask)
        except ApiError as error:
            if exchange.permit is not None:
                error.extra_headers += tuple(exchange.permit.headers())
            outcome = UsageOutcome.UPSTREAM_ERROR if error.status >= 500 else UsageOutcome.REJECTED
            _note(exchange, call)
            self._books.settle(exchange, error.status, outcome, Tokens())
            return await _fail(inference, ask, error)
        except (asyncio.CancelledError, ClientGoneError):
            _note(exchange, call)
            tokens = None if call.sent is None else Tokens(estimated=True)
            self._books.settle_interrupted(exchange, CLIENT_CLOSED, UsageOutcome.CLIENT_DISCONNECTED, tokens)
            if running.interruption is None or inference.reply.gone:
                raise
            running.absorb()
            return await _fail(inference, ask, running.interruption)
        finally:
            self.running.leave(running)
            if exchange.permit is not None:
                exchange.permit.release()

    async def _admit(self, inference: Inference, exchange: Exchange, ask: Ask) -> Headers:
        """Take what the request may use of its key's limits; the headers that tell the client how much is left."""
        if exchange.permit is not None:
            return exchange.permit.headers()
        if self._limiter is None or not inference.key.limited:
            return []
        permit = await self._limiter.admit(inference.key, ask.need(), stream=ask.stream)
        exchange.permit = permit
        return permit.headers()

    async def _forward(self, inference: Inference, exchange: Exchange, call: Call, ask: Ask) -> int:
        name = ask.fields.model
        route = self._projection.table.find(name)
        if route is None:
            raise errors.model_not_found(name)
        exchange.route = route
        if not inference.key.may_use(route.names):
            raise errors.model_not_allowed(name)
        check_task(inference.api, name, route.task)
        limits = await self._admit(inference, exchange, ask)
        if ask.tokenize is not None and needs_template(route.engine_type, ask.tokenize):
            ask.rendered = await self._render(call, ask)
        answer = await self._open(call, ask)
        try:
            _note(exchange, call)
            served_by = call.route or route
            headers = [*_headers(inference), (b"x-cortex-model", served_by.label), *limits]
            delivery = Delivery(exchange, answer, inference.reply, headers, call.metrics)
            answering = answering_of(served_by, answer.target, ask, inference.request_id)
            if answer.is_stream and ask.stream:
                await self._relay.stream(delivery, answering.leveller())
            elif answer.is_stream:
                await self._relay.gather(delivery, answering)
            else:
                await self._relay.whole(delivery, answering)
        finally:
            answer.close()
        return 200

    async def _open(self, call: Call, ask: Ask) -> Answer:
        """An answer to begin. An engine that cannot make so many tokens is asked for as many as it can."""
        try:
            return await self._dispatcher.open(call)
        except TokensOverContextError as error:
            if ask.most is not None:
                raise
            ask.most = error.most
        return await self._dispatcher.open(call)

    async def _render(self, call: Call, ask: Ask) -> str:
        """A chat as the text that its model would see, by the engine itself."""

        def prepare(route: Route, _target: Target) -> UpstreamRequest:
            return _prepare_rendering(route, call, ask)

        rendering = dataclasses.replace(call, prepare=prepare)
        answer = await self._dispatcher.open(rendering)
        try:
            return await self._relay.read(answer, read_rendered)
        finally:
            answer.close()

    def _new_exchange(self, inference: Inference, ask: Ask) -> Exchange:
        exchange = Exchange(
            request_id=inference.own_id,
            correlation_id=inference.request_id,
            api=inference.api,
            key=inference.key,
            model=ask.fields.model[:256],
            stream=ask.stream,
            started_at=inference.started_at,
            started=inference.started,
        )
        exchange.trace = self._tracer.begin(inference.request, inference.api.path)
        return exchange


def _call(inference: Inference, ask: Ask, exchange: Exchange) -> Call:
    head = engine_head(inference.request_id, exchange)
    return Call(
        model=ask.fields.model,
        stream=ask.stream or ask.several,
        request_id=inference.request_id,
        metrics=inference.metrics,
        prepare=lambda route, target: prepare(route, target, ask, head),
        key_id=inference.key.id,
        batch=inference.key.document.priority == "batch",
        affinity=affinity_of(inference.request, ask),
        may_use=lambda route: inference.key.may_use(route.names),
        ping=functools.partial(ping, inference.reply, _headers(inference)) if ask.stream else None,
    )


def engine_head(request_id: str, exchange: Exchange) -> bytes:
    """The header lines that the engine is sent for this request."""
    head = b"x-request-id: " + request_id.encode() + b"\r\n"
    return head if exchange.trace is None else head + exchange.trace.head


def prepare(route: Route, target: Target, ask: Ask, head: bytes) -> UpstreamRequest:
    """The engine's form of the request; raises ApiError when this engine cannot do what it asks."""
    model = route.model
    return UpstreamRequest(
        path=ask.api.upstream_path,
        body=engine_body(ask, route.capabilities, _name_at(route, target, ask), route.defaults),
        first_byte_timeout_s=model.request_timeout_s,
        idle_timeout_s=model.stream_timeout_s,
        extra_head=head,
    )


async def _fail(inference: Inference, ask: Ask, error: ApiError) -> int:
    """Tell of an error: by raising it while nothing was sent, at the end of a stream that has begun."""
    if not inference.reply.started:
        raise error
    if not ask.stream:
        raise ClientGoneError  # an answer of known length that will not be complete: only a hang-up tells
    await end_with(inference.reply, inference.api.path, error)
    return error.status


def affinity_of(request: Request, ask: Ask) -> Affinity | None:
    """What may tie the request to a replica; the body counts for models with prefix_affinity only."""
    session = request.header(SESSION_HEADER)
    if session is None and not ask.api.streams:
        return None
    key = ask.fields.prompt_cache_key
    return Affinity(session or None, None if key is NULL or not key else bytes(key), ask.body)


def _headers(inference: Inference) -> Headers:
    return [(b"x-request-id", inference.request_id.encode())]


def _name_at(route: Route, target: Target, ask: Ask) -> str:
    """What the engine calls the model."""
    asked = ask.fields.model
    return target.served_name or (asked if asked in route.adapters else route.model.served_model_name)


def answering_of(route: Route, target: Target, ask: Ask, request_id: str) -> Answering:
    """How an answer of this replica is made the client's."""
    name = _name_at(route, target, ask)
    own = ask.fields.model in route.names
    return Answering(ask, route.capabilities, name, own, request_id)


def _prepare_rendering(route: Route, call: Call, ask: Ask) -> UpstreamRequest:
    return UpstreamRequest(
        path=MESSAGES_PATH,
        body=template_body(ask.body),
        first_byte_timeout_s=route.model.request_timeout_s,
        idle_timeout_s=route.model.stream_timeout_s,
        extra_head=b"x-request-id: " + call.request_id.encode() + b"\r\n",
    )


def _note(exchange: Exchange, call: Call) -> None:
    """Carry over what forwarding found out."""
    if call.route is not None:
        exchange.route = call.route
    exchange.target = call.target
    exchange.sent_body = None if call.sent is None else call.sent.body
