"""The way of most requests: one attempt on a connection that is there, all of it in callbacks, nothing ever waited for.

What needs more than that (a place in a line, a new connection, a model to wake, a retry, a fallback, an error to be
told) goes the way of `pipeline`: from its beginning while nothing was sent, else from where it is (`begun`). Both ways
are made of the same decisions.
"""

from cortex_gateway import metrics
from cortex_gateway.attempts import Sent
from cortex_gateway.direct_request import Client, DirectRequest, Resume, Stations
from cortex_gateway.domain.auth import ApiKey, require_scope
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import Ask, read_ask
from cortex_gateway.domain.requests import API_ROUTES, ApiRoute, check_task
from cortex_gateway.domain.routing import Route, Target
from cortex_gateway.inference import affinity_of, engine_head, prepare
from cortex_gateway.limiter import Limiter
from cortex_gateway.pipeline import client_request_id, key_of
from cortex_gateway.ports import ClientLine, PlainReply, Request, UpstreamRequest
from cortex_gateway.projection import Projection
from cortex_gateway.running import DEADLINE_HEADER
from cortex_gateway.settlement import Exchange
from cortex_gateway.tracing import RequestTracer
from cortex_kit.ids import uuid7

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
_APIS = {path: API_ROUTES[path] for path in _PATHS}


class DirectPath:
    """Called with each request whose body is there. `default_max_tokens`: see `read_ask`."""

    def __init__(
        self,
        stations: Stations,
        projection: Projection,
        limiter: Limiter,
        tracer: RequestTracer,
        resume: Resume,
        *,
        default_max_tokens: int = 0,
    ) -> None:
        self._stations = stations
        self._projection = projection
        self._limiter = limiter
        self._tracer = tracer
        self._resume = resume
        self._default_max_tokens = default_max_tokens

    def take(self, line: ClientLine, request: Request, reply: PlainReply, body: bytes) -> bool:
        """Begin to answer. False: nothing was done, the request needs more than this path has.

        Never raises.
        """
        api = _APIS.get(request.path)
        projection, stations = self._projection, self._stations
        if (
            api is None
            or stations.traffic.draining
            or not projection.synced
            or projection.keys_outdated()
            or request.header(DEADLINE_HEADER) is not None
        ):
            return False
        started, now = stations.clock.monotonic(), stations.clock.now()
        try:
            key = key_of(projection.keys, request, now)
            if api.scope:
                require_scope(key, api.scope)
            ask = read_ask(api, body, self._default_max_tokens)
            route = self._route(api, key, ask)
        except ApiError:
            return False
        if route is None:
            return False
        own_id = uuid7()
        exchange = Exchange(
            request_id=own_id,
            correlation_id=client_request_id(request) or own_id,
            api=api,
            key=key,
            model=ask.fields.model[:256],
            stream=ask.stream,
            started_at=now,
            started=started,
        )
        return self._send(line, request, reply, exchange, ask, route)

    def _route(self, api: ApiRoute, key: ApiKey, ask: Ask) -> Route | None:
        """The model, if the key may use it and one engine can answer in one answer."""
        name = ask.fields.model
        route = self._projection.table.find(name)
        if route is None or ask.several or not key.may_use(route.names):
            return None
        check_task(api, name, route.task)
        return route

    def _send(
        self, line: ClientLine, request: Request, reply: PlainReply, exchange: Exchange, ask: Ask, route: Route
    ) -> bool:
        stations = self._stations
        fleet = stations.dispatcher.at_rest(route)
        if fleet is None or not fleet.gate.try_enter():
            return False
        index = fleet.choose((), affinity_of(request, ask))
        target = fleet.targets[index or 0]
        upstream = stations.pool.idle(target.endpoint)
        if upstream is None:
            fleet.gate.abandon()
            return False
        figures = stations.traffic.figures(exchange.api.path)
        prepared = self._prepare(route, target, exchange, ask)
        if prepared is None:
            stations.pool.release(target.endpoint, upstream)
            fleet.gate.abandon()
            return False
        metrics.AUTH_ACCEPTED.value += 1
        metrics.DIRECT.value += 1
        exchange.trace = self._tracer.begin(request, exchange.api.path)
        prepared.extra_head = engine_head(exchange.correlation_id or exchange.request_id, exchange)
        sent = Sent(fleet, route, target, prepared, figures.upstream(target), fleet.now())
        client = Client(line, request, reply, self._resume)
        DirectRequest(stations, exchange, ask, client, figures).begin(sent, upstream)
        return True

    def _prepare(self, route: Route, target: Target, exchange: Exchange, ask: Ask) -> UpstreamRequest | None:
        """The engine's form of the request, taken from the limits of its key; None when either says no."""
        try:
            prepared = prepare(route, target, ask, b"")
        except ApiError:
            return None
        if exchange.key.limited:
            exchange.permit = self._limiter.try_admit(exchange.key, ask.need(), stream=ask.stream)
            if exchange.permit is None:
                return None
        return prepared
