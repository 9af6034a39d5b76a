"""The hot path: one request in, one answer out. Free of framework types; the only I/O is the engine's."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_gateway import metrics
from cortex_gateway.begun import Begun
from cortex_gateway.cancelling import REQUESTS_PATH, Cancellation
from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey, KeyRing, authenticate, check_use
from cortex_gateway.domain.dialects import dialect_of, error_body
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.requests import API_ROUTES
from cortex_gateway.inference import Inference, InferenceHandler
from cortex_gateway.metrics import CLIENT_CLOSED, RouteMetrics
from cortex_gateway.passthrough import PREFIX, Passthrough
from cortex_gateway.ports import ClientGoneError, Reply, Request
from cortex_gateway.projection import Projection
from cortex_gateway.settlement import Bookkeeper
from cortex_gateway.traffic import Traffic
from cortex_kit.clock import Clock
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger

log = get_logger()

MODELS_PATH = "/v1/models"
RESPONSES_PATH = "/v1/responses/"
_KNOWN = ("/v1/", PREFIX)
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the pipeline is made of."""

    projection: Projection
    inference: InferenceHandler
    books: Bookkeeper
    clock: Clock
    passthrough: Passthrough
    cancellation: Cancellation
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class _Timing:
    """When a request came, and which figures it belongs to."""

    started: float
    figures: RouteMetrics


def new_traffic() -> Traffic:
    """With figures for every path that the gateway knows."""
    return Traffic((*API_ROUTES, MODELS_PATH, PREFIX))


class Gateway:
    """Handles every request outside the operations endpoints."""

    def __init__(self, parts: Parts) -> None:
        self._projection = parts.projection
        self._inference = parts.inference
        self._books = parts.books
        self._clock = parts.clock
        self._passthrough = parts.passthrough
        self._cancellation = parts.cancellation
        self._traffic = parts.traffic

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request, whatever happens. Cancelled only by a shutdown."""
        started = self._clock.monotonic()
        own_id = uuid7()
        request_id = client_request_id(request) or own_id
        figures = self._figures_of(request.path)
        answering = self._answer(request, reply, own_id, request_id, started)
        await self._guarded(request, reply, request_id, _Timing(started, figures), answering)

    async def resume(self, request: Request, reply: Reply, begun: Begun) -> None:
        """`handle` for what the direct path began."""
        exchange = begun.exchange
        request_id = exchange.correlation_id or exchange.request_id
        answering = self._inference.resume(request, reply, begun)
        await self._guarded(request, reply, request_id, _Timing(exchange.started, begun.metrics), answering)

    async def _guarded(
        self, request: Request, reply: Reply, request_id: str, timing: "_Timing", answering: Awaitable[int]
    ) -> None:
        self._traffic.enter()
        status = 500
        try:
            status = await answering
        except ApiError as error:
            status = await self._refuse(request, reply, error, request_id)
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
            status = await self._refuse(request, reply, errors.internal_error(), request_id)
        finally:
            self._traffic.leave(timing.figures, status, self._clock.monotonic() - timing.started)

    async def drain(self) -> None:
        """Refuse new requests; return when those in flight are answered and settled."""
        await self._traffic.drained()
        await self._books.drained()

    def _figures_of(self, path: str) -> RouteMetrics:
        if path.startswith(MODELS_PATH):
            return self._traffic.figures(MODELS_PATH)
        return self._traffic.figures(PREFIX if path.startswith(PREFIX) else path)

    async def _answer(self, request: Request, reply: Reply, own_id: str, request_id: str, started: float) -> int:
        if self._traffic.draining:
            raise errors.draining()
        path = request.path
        api = API_ROUTES.get(path)
        if api is None and not path.startswith(_KNOWN):
            raise errors.unknown_url(request.method, path)
        if not self._projection.synced:
            raise errors.not_synced()
        if self._projection.keys_outdated():
            raise errors.keys_outdated()
        now = self._clock.now()
        key = self._authenticate(request, now)
        if api is not None:
            if request.method != "POST":
                raise errors.method_not_allowed(request.method, path, "POST")
            return await self._inference.run(
                Inference(request, reply, api, key, own_id, request_id, self._traffic.figures(path), now, started)
            )
        if path == MODELS_PATH or path.startswith(MODELS_PATH + "/"):
            if request.method != "GET":
                raise errors.method_not_allowed(request.method, path, "GET")
            return await self._models(key, path, reply, request_id)
        return await self._answer_others(request, reply, key, request_id)

    def _authenticate(self, request: Request, now: datetime) -> ApiKey:
        """The sender's key. Raises ApiError 401 or 403."""
        try:
            key = key_of(self._projection.keys, request, now)
        except ApiError as error:
            metrics.AUTH_BLOCKED.labels(error.code).inc()
            raise
        metrics.AUTH_ACCEPTED.value += 1
        return key

    async def _answer_others(self, request: Request, reply: Reply, key: ApiKey, request_id: str) -> int:
        path = request.path
        if path.startswith(PREFIX):
            return await self._passthrough.run(request, reply, key, request_id)
        if path.startswith(REQUESTS_PATH):
            return await self._cancellation.handle(key, request.method, path, reply, request_id)
        if path.startswith(RESPONSES_PATH):
            raise errors.response_not_stored(path[len(RESPONSES_PATH) :].partition("/")[0])
        raise errors.unknown_url(request.method, path)

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

    async def _refuse(self, request: Request, reply: Reply, error: ApiError, request_id: str) -> int:
        """Answer with an error; when the answer has begun there is nothing left to say."""
        if reply.started:
            return error.status
        body = error_body(error, dialect_of(request.path), request_id)
        headers = [
            *error.headers(),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        if self._traffic.draining or error.status == 408:
            headers.append((b"connection", b"close"))
        try:
            await reply.start(error.status, headers)
            await reply.send(body, more=False)
        except ClientGoneError:
            return CLIENT_CLOSED
        return error.status


def client_request_id(request: Request) -> str | None:
    """The client's own request id when it is short and harmless. Never used as the id of a record."""
    given = request.header(b"x-request-id")
    return given.decode() if given is not None and _SANE_REQUEST_ID.fullmatch(given) else None


def key_of(ring: KeyRing, request: Request, now: datetime) -> ApiKey:
    """The key that a request shows, if it may be used. Raises ApiError 401 or 403."""
    memo = request.memo
    key = None if memo.key_digest is None else ring.get(memo.key_digest)
    if key is None:
        key = authenticate(ring, credentials(request), now, request.client_ip)
        memo.key_digest = key.digest
    else:
        check_use(key, now, request.client_ip)
    return key


def credentials(request: Request) -> bytes | None:
    """What the client shows: Authorization, or the header of Anthropic's clients."""
    given = request.header(b"authorization")
    if given is None and (key := request.header(b"x-api-key")) is not None:
        return b"Bearer " + key
    return given


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
