"""The hot path: one request in, one answer out. Free of framework types; the only I/O is the engine's."""

import asyncio
import re
from dataclasses import dataclass

import msgspec

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle, UsageOutcome
from cortex_gateway import metrics
from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey, authenticate, require_scope
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling import check_request, prepare_body
from cortex_gateway.domain.requests import API_ROUTES, ApiRoute, RequestFields, check_task, decode_request
from cortex_gateway.domain.routing import Route, Target
from cortex_gateway.domain.usage import Tokens
from cortex_gateway.forwarding import Call, Dispatcher
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import ClientGoneError, Reply, Request, UpstreamRequest
from cortex_gateway.projection import Projection
from cortex_gateway.relay import Delivery, Relay, new_leveller
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_kit.clock import Clock
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger

log = get_logger()

MODELS_PATH = "/v1/models"
CLIENT_CLOSED = 499
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the pipeline is made of."""

    projection: Projection
    dispatcher: Dispatcher
    relay: Relay
    books: Bookkeeper
    clock: Clock


class Gateway:
    """Handles every request outside the operations endpoints."""

    def __init__(self, parts: Parts) -> None:
        self._projection = parts.projection
        self._dispatcher = parts.dispatcher
        self._relay = parts.relay
        self._books = parts.books
        self._clock = parts.clock
        self._metrics = {path: RouteMetrics(path) for path in (*API_ROUTES, MODELS_PATH)}
        self._other = RouteMetrics("other")
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request, whatever happens. Cancelled only by a shutdown."""
        started = self._clock.monotonic()
        own_id = uuid7()
        request_id = client_request_id(request) or own_id
        route_metrics = self._metrics_of(request.path)
        self._enter()
        status = 500
        try:
            status = await self._answer(request, reply, own_id, request_id)
        except ApiError as error:
            status = await self._refuse(reply, error, request_id)
        except ClientGoneError:
            status = CLIENT_CLOSED
        except asyncio.CancelledError:
            status = CLIENT_CLOSED
            if not reply.gone:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except Exception:
            # The boundary of one request: it fails alone, with a trace in the log.
            log.exception("request_failed", request_id=request_id, path=request.path)
            status = await self._refuse(reply, errors.internal_error(), request_id)
        finally:
            self._leave()
            if status == CLIENT_CLOSED:
                route_metrics.disconnects.inc()
            route_metrics.requests(status).inc()
            route_metrics.latency.observe(self._clock.monotonic() - started)

    async def drain(self) -> None:
        """Refuse new requests; return when those in flight are answered and settled."""
        self.draining = True
        await self._idle.wait()
        await self._books.drained()

    def _enter(self) -> None:
        self._in_flight += 1
        self._idle.clear()
        metrics.IN_FLIGHT.set(self._in_flight)

    def _leave(self) -> None:
        self._in_flight -= 1
        metrics.IN_FLIGHT.set(self._in_flight)
        if self._in_flight == 0:
            self._idle.set()

    def _metrics_of(self, path: str) -> RouteMetrics:
        if path.startswith(MODELS_PATH):
            return self._metrics[MODELS_PATH]
        return self._metrics.get(path, self._other)

    async def _answer(self, request: Request, reply: Reply, own_id: str, request_id: str) -> int:
        if self.draining:
            raise errors.draining()
        path = request.path
        if not path.startswith("/v1/"):
            raise errors.unknown_url(request.method, path)
        if not self._projection.synced:
            raise errors.not_synced()
        key = authenticate(
            self._projection.keys, request.header(b"authorization"), self._clock.now(), request.client_ip
        )
        api = API_ROUTES.get(path)
        if api is not None:
            if request.method != "POST":
                raise errors.method_not_allowed(request.method, path, "POST")
            return await self._infer(_Inference(request, reply, api, key, own_id, request_id))
        if path == MODELS_PATH or path.startswith(MODELS_PATH + "/"):
            if request.method != "GET":
                raise errors.method_not_allowed(request.method, path, "GET")
            return await self._models(key, path, reply, request_id)
        raise errors.unknown_url(request.method, path)

    async def _infer(self, inference: "_Inference") -> int:
        require_scope(inference.key, inference.api.scope)
        body = await inference.request.read_body()
        inference.reply.watch()
        fields = decode_request(body)
        exchange = self._new_exchange(inference, fields)
        call = Call(
            model=fields.model,
            stream=bool(fields.stream) and inference.api.streams,
            request_id=inference.request_id,
            metrics=self._metrics[inference.api.path],
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

    async def _forward(self, inference: "_Inference", exchange: Exchange, call: Call, fields: RequestFields) -> int:
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

    def _new_exchange(self, inference: "_Inference", fields: RequestFields) -> Exchange:
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

    async def _models(self, key: ApiKey, path: str, reply: Reply, request_id: str) -> int:
        table = self._projection.table
        if path.rstrip("/") == MODELS_PATH:
            offered = [
                _describe(route.model.served_model_name, route.model)
                for route in table.routes
                if key.may_use(route.names) and _is_offered(route.model)
            ]
            await _send_json(reply, 200, {"object": "list", "data": offered}, request_id)
            return 200
        name = path[len(MODELS_PATH) + 1 :]
        route = table.find(name)
        if route is None or not key.may_use(route.names):
            raise errors.model_not_found(name)
        await _send_json(reply, 200, _describe(name, route.model), request_id)
        return 200

    async def _refuse(self, reply: Reply, error: ApiError, request_id: str) -> int:
        """Answer with an error; when the answer has begun there is nothing left to say."""
        if reply.started:
            return error.status
        body = error.body()
        headers = [
            *error.headers(),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        if self.draining or error.status == 408:
            headers.append((b"connection", b"close"))
        try:
            await reply.start(error.status, headers)
            await reply.send(body, more=False)
        except ClientGoneError:
            return CLIENT_CLOSED
        return error.status


@dataclass(frozen=True, slots=True)
class _Inference:
    """A request for an engine whose sender is known."""

    request: Request
    reply: Reply
    api: ApiRoute
    key: ApiKey
    own_id: str
    request_id: str


def client_request_id(request: Request) -> str | None:
    """The client's own request id when it is short and harmless. Never used as the id of a record."""
    given = request.header(b"x-request-id")
    return given.decode() if given is not None and _SANE_REQUEST_ID.fullmatch(given) else None


def _prepare(
    route: Route, target: Target, inference: _Inference, fields: RequestFields, body: bytes
) -> UpstreamRequest:
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


def _is_offered(model: ModelDocumentV1) -> bool:
    return model.desired_state is DesiredState.RUNNING or model.lifecycle is Lifecycle.ON_DEMAND


def _describe(name: str, model: ModelDocumentV1) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _created(model.id), "owned_by": "cortex"}


def _created(model_id: str) -> int:
    """Unix seconds inside a UUIDv7; 0 for any other id."""
    digits = model_id.replace("-", "")
    if len(digits) != 32 or digits[12:13] != "7":
        return 0
    try:
        return int(digits[:12], 16) // 1000
    except ValueError:
        return 0


async def _send_json(reply: Reply, status: int, value: object, request_id: str) -> None:
    body = msgspec.json.encode(value)
    await reply.start(
        status,
        [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ],
    )
    await reply.send(body, more=False)
