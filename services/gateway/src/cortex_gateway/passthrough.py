"""`/upstream/{model}/…`: an engine's own API and UI as they are, for administrators. Off unless a setting turns it on."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.routing import Route, RoutingTable, Target
from cortex_gateway.ports import Failure, Headers, Reply, Request, UpstreamClient, UpstreamError, UpstreamRequest
from cortex_gateway.projection import Projection
from cortex_kit.logging import get_logger

log = get_logger()

PREFIX = "/upstream/"
SCOPE = "upstream"
REPLICA_HEADER = b"x-cortex-replica"
_PREFIX_BYTES = PREFIX.encode()
_BODILESS = (204, 304)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"authorization",
    b"x-api-key",
    b"cookie",
    b"host",
    b"content-length",
    b"expect",
    b"x-request-id",
    REPLICA_HEADER,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Which model is meant, and what its engine is asked for: path and query as they were sent."""

    route: Route
    path: str


class Passthrough:
    """Passes any request on to one replica of a model, with the engine's key in place of the caller's."""

    def __init__(self, projection: Projection, client: UpstreamClient, *, enabled: bool) -> None:
        self._projection = projection
        self._client = client
        self._enabled = enabled

    async def run(self, request: Request, reply: Reply, key: ApiKey, request_id: str) -> int:
        """Answer with what the engine answers, byte for byte.

        Raises:
            ApiError: it is turned off, the key lacks the right, the model is unknown or has no replica, or the engine
                failed before its answer began.
        """
        if not self._enabled:
            raise errors.unknown_url(request.method, PREFIX)
        require_right(key)
        if request.header(b"upgrade") is not None:
            raise ApiError(400, "websocket_not_supported", "WebSockets are not passed on to engines.")
        address = find_address(self._projection.table, request.target)
        if not key.may_use(address.route.names):
            raise errors.model_not_allowed(address.route.model.served_model_name)
        target = pick(address.route, request.header(REPLICA_HEADER))
        body = await request.read_body()
        reply.watch()
        log.info(
            "upstream_passed_through",
            key_id=key.id,
            model_id=address.route.model.id,
            replica_id=target.replica_id,
            method=request.method,
            path=address.path.partition("?")[0],
            request_id=request_id,
        )
        upstream = UpstreamRequest(
            path=address.path,
            body=body,
            first_byte_timeout_s=address.route.model.request_timeout_s,
            idle_timeout_s=address.route.model.stream_timeout_s,
            extra_head=forwarded_head(request.headers, request_id),
            method=request.method.encode(),
            own_head=True,
        )
        return await self._exchange(target, upstream, reply, request_id)

    async def _exchange(self, target: Target, upstream: UpstreamRequest, reply: Reply, request_id: str) -> int:
        try:
            response = await self._client.post(target.endpoint, upstream)
        except UpstreamError as error:
            if error.failure is Failure.TIMEOUT:
                raise errors.engine_timeout(upstream.first_byte_timeout_s) from error
            raise errors.engine_lost() from error
        try:
            own: Headers = [(b"x-request-id", request_id.encode()), (REPLICA_HEADER, target.replica_id.encode())]
            await reply.start(response.status, [*answered_headers(response.headers), *own])
            if upstream.method != b"HEAD" and response.status not in _BODILESS:
                while chunk := await response.read():
                    await reply.send(chunk, more=True)
            await reply.send(b"", more=False)
            return response.status
        except UpstreamError as error:
            # What has been sent cannot be taken back: the client must see that the answer is not whole.
            raise asyncio.CancelledError from error
        finally:
            response.close()


def require_right(key: ApiKey) -> None:
    """Both the scope `*` and the scope `upstream`, which no key has unless an administrator said so.

    Raises:
        ApiError: 403 `insufficient_scope`.
    """
    if not key.all_scopes:
        raise errors.scope_missing("*")
    if SCOPE not in key.scopes:
        raise errors.scope_missing(SCOPE)


def find_address(table: RoutingTable, target: bytes) -> Address:
    """The model that a path begins with: names may hold slashes, plain or as %2F.

    Raises:
        ApiError: 404 `model_not_found`; 400 `invalid_path` for a path that climbs.
    """
    path, mark, query = target[len(_PREFIX_BYTES) :].decode("ascii", "replace").partition("?")
    segments = path.split("/")
    if any(unquote(segment) in (".", "..") for segment in segments):
        raise ApiError(400, "invalid_path", "The path must not hold `.` or `..`.")
    for length in range(1, len(segments) + 1):
        route = table.find(unquote("/".join(segments[:length])))
        if route is not None:
            return Address(route, "/" + "/".join(segments[length:]) + mark + query)
    raise errors.model_not_found(unquote(segments[0]))


def pick(route: Route, wanted: bytes | None) -> Target:
    """Always the same replica while it is healthy: the first, or the one that is asked for.

    Raises:
        ApiError: 503 without a healthy replica; 404 `replica_not_found` when there is no such one.
    """
    if not route.targets:
        why = route.unavailability
        raise errors.model_unavailable(route.model.served_model_name, why.state, why.reason, why.retry_after_s)
    if wanted is None:
        return route.targets[0]
    for target in route.targets:
        if target.replica_id.encode() == wanted:
            return target
    raise ApiError(404, "replica_not_found", "This model has no healthy replica of that id.")


def forwarded_head(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> bytes:
    """The client's headers for the engine, without what belongs to the connection or to Cortex."""
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers if name not in _NOT_FORWARDED]
    return b"".join(lines) + b"x-request-id: " + request_id.encode() + b"\r\n"


def answered_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The engine's headers for the client."""
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP and name != b"x-request-id"]
