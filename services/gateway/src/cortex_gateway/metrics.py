"""Prometheus metrics of the gateway. Label values come from bounded sets: routes, statuses, engines, models, replicas.

What changes with every request is made of `instruments`, the rest of prometheus_client. docs/observability.md lists all.
"""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from cortex_gateway.domain.routing import RoutingTable, Target
from cortex_gateway.instruments import Cell, Family, counters, gauges, histograms
from cortex_gateway.upstream_metrics import UpstreamCell, UpstreamMetrics

CLIENT_CLOSED = 499
"""Status of a request whose client left before its answer."""
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)

REQUESTS = counters("gateway_requests_total", "Requests answered", ["route", "status"])
DIRECT = counters("gateway_direct_requests_total", "Requests sent to an engine without waiting for anything").labels()
LATENCY = histograms("gateway_request_latency_seconds", "Until the end of the answer", ["route"], _LATENCY)
TTFT = histograms("gateway_stream_ttft_seconds", "Until the first bytes of a stream", ["path"], _LATENCY)
IN_FLIGHT = gauges("gateway_in_flight_requests", "Requests being handled").labels()
UPSTREAMS = UpstreamMetrics(_LATENCY)
REGISTRY.register(UPSTREAMS)

_MODEL = ["model", "engine_type"]
MODEL_REQUESTS = counters(
    "gateway_model_requests_total", "Requests settled, by how they ended", ["model", "engine_type", "outcome"]
)
MODEL_SECONDS = histograms("gateway_model_request_seconds", "From the request to its settlement", _MODEL, _LATENCY)
MODEL_TTFT = histograms("gateway_ttft_seconds", "Until the first bytes of a stream, by model", _MODEL, _LATENCY)
INTER_TOKEN = histograms(
    "gateway_inter_token_seconds", "Between two tokens of a stream: the mean of each stream", _MODEL, _TOKEN
)
TOKENS = counters(
    "gateway_tokens_total", "Tokens settled: prompt, cached (part of prompt), completion", [*_MODEL, "kind"]
)
TIMEOUTS = counters(
    "gateway_timeout_errors_total", "Engines that kept a request waiting too long", ["model", "error_type", "path"]
)
CANCELLATIONS = counters(
    "gateway_request_cancellations_total", "Requests that nobody waited for any more", ["model", "reason", "path"]
)
BY_MODEL = (MODEL_REQUESTS, MODEL_SECONDS, MODEL_TTFT, INTER_TOKEN, TOKENS, TIMEOUTS, CANCELLATIONS)
"""Families whose first label is a model."""

AUTH_ACCEPTED = counters("gateway_key_auth_allowed_total", "Requests whose key was accepted", ["reason"]).labels("key")
AUTH_BLOCKED = counters("gateway_key_auth_blocked_total", "Requests refused for their key, by error code", ["reason"])
DEGRADATIONS = counters(
    "gateway_upstream_health_degradation_total", "Replicas that stopped being healthy", ["replica", "reason"]
)
WAITING = Gauge("gateway_waiting_requests", "Requests waiting for a replica")
RETRIES = counters("gateway_upstream_retries_total", "Further attempts before the first byte", ["path", "reason"])
BREAKER_OPENS = counters("gateway_breaker_open_total", "Breakers opened", ["engine_type", "replica"])
DISCONNECTS = counters("gateway_client_disconnects_total", "Clients that hung up before the end", ["route"])
STREAM_ERRORS = Counter("gateway_stream_errors_total", "Streams that ended with an error", ["engine_type"])
USAGE_RECORDS: Family[Cell] = counters(
    "gateway_usage_records_total", "Usage records, by what became of them", ["outcome"]
)
SPOOL_BYTES = Gauge("gateway_usage_spool_bytes", "Usage records on disk that NATS does not have yet")
SPOOL_SEGMENTS = Gauge("gateway_usage_spool_segments", "Files of the usage spool")
PROJECTION_AGE = Gauge("gateway_projection_age_seconds", "Since the projection was known to be true; 0 while it is")
SNAPSHOTS = Counter("gateway_projection_snapshots_total", "Snapshots on disk, by what became of them", ["outcome"])
LIMIT_REFUSALS = counters("gateway_limit_refusals_total", "Requests refused by a limit of their key", ["limit"])
LIMIT_ALLOWED = counters("gateway_ratelimit_allowed_total", "Requests within every limit of their key").labels()
LIMIT_WAITS = Counter("gateway_limit_waits_total", "Requests that waited for a share of a limit")
LIMIT_LOCAL = Gauge("gateway_limits_local", "1 while limits are kept by this gateway alone because NATS is away")
LIMIT_COUNTERS_LOST = Counter("gateway_limit_counters_lost_total", "Times that the counters of limits were lost")
STALENESS = Gauge("gateway_projection_staleness_seconds", "Since NATS was last connected; 0 while it is")
CONNECTIONS = Gauge("gateway_http_connections", "Connections of clients")
BAD_MESSAGES = Counter("gateway_http_bad_messages_total", "Requests refused before anybody read them", ["reason"])
ROUTES = Gauge("gateway_routing_targets", "Healthy replicas in the routing table")

QUEUED = Gauge("gateway_queue_length", "Requests waiting for a slot of a busy model", ["model"])
QUEUE_TIME = Histogram("gateway_queue_seconds", "Waited for a slot, of those that had to", ["class"], buckets=_LATENCY)
QUEUE_REFUSALS = Counter("gateway_queue_refusals_total", "Requests that got no slot", ["reason"])
FALLBACKS = Counter("gateway_fallbacks_total", "Requests taken to another model", ["outcome"])
HEDGES = Counter("gateway_hedges_total", "Second attempts beside a slow one", ["outcome"])
INTERRUPTED = Counter("gateway_interrupted_total", "Requests ended by their deadline or by a cancel", ["reason"])


def forget_replicas(table: RoutingTable, known: frozenset[str]) -> None:
    """Drop the series of replicas that are neither in the table nor otherwise known."""
    live = known | {target.replica_id for route in table.routes for target in route.targets}
    UPSTREAMS.keep(live)
    BREAKER_OPENS.keep(lambda values: values[1] in live)
    DEGRADATIONS.keep(lambda values: values[0] in live)


class RouteMetrics:
    """Children of the labelled metrics of one route, looked up once."""

    __slots__ = ("_path", "_requests", "_upstreams", "disconnects", "latency", "ttft")

    def __init__(self, path: str) -> None:
        self._path = path
        self._requests: dict[int, Cell] = {}
        self._upstreams = UPSTREAMS.path(path)
        self.latency = LATENCY.labels(path)
        self.ttft = TTFT.labels(path)
        self.disconnects = DISCONNECTS.labels(path)

    def requests(self, status: int) -> Cell:
        child = self._requests.get(status)
        if child is None:
            child = self._requests[status] = REQUESTS.labels(self._path, str(status))
        return child

    def upstream(self, target: Target) -> UpstreamCell:
        """The figures of this route at one replica."""
        return self._upstreams.of(target)

    def retried(self, reason: str) -> None:
        """Another attempt follows."""
        RETRIES.labels(self._path, reason).inc()
