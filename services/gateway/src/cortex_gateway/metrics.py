"""Prometheus metrics of the gateway. Label values come from bounded sets: routes, statuses, engines."""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Counter("gateway_requests_total", "Requests answered", ["route", "status"])
LATENCY = Histogram("gateway_request_latency_seconds", "Until the end of the answer", ["route"], buckets=_LATENCY)
UPSTREAM_LATENCY = Histogram(
    "gateway_upstream_latency_by_engine_seconds",
    "Until the engine's answer began",
    ["path", "engine_type"],
    buckets=_LATENCY,
)
UPSTREAM_SELECTED = Counter(
    "gateway_upstream_selected_by_engine_total", "Attempts sent to a replica", ["path", "engine_type"]
)
TTFT = Histogram("gateway_stream_ttft_seconds", "Until the first bytes of a stream", ["path"], buckets=_LATENCY)
IN_FLIGHT = Gauge("gateway_in_flight_requests", "Requests being handled")
WAITING = Gauge("gateway_waiting_requests", "Requests waiting for a replica")
RETRIES = Counter("gateway_upstream_retries_total", "Further attempts before the first byte", ["reason"])
BREAKER_OPENS = Counter("gateway_breaker_open_total", "Breakers opened", ["engine_type"])
DISCONNECTS = Counter("gateway_client_disconnects_total", "Clients that hung up before the end", ["route"])
STREAM_ERRORS = Counter("gateway_stream_errors_total", "Streams that ended with an error", ["engine_type"])
USAGE_RECORDS = Counter("gateway_usage_records_total", "Usage records, by what became of them", ["outcome"])
SPOOL_BYTES = Gauge("gateway_usage_spool_bytes", "Usage records on disk that NATS does not have yet")
SPOOL_SEGMENTS = Gauge("gateway_usage_spool_segments", "Files of the usage spool")
LIMIT_REFUSALS = Counter("gateway_limit_refusals_total", "Requests refused by a limit of their key", ["limit"])
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


class RouteMetrics:
    """Children of the labelled metrics of one route, looked up once."""

    __slots__ = ("_path", "_requests", "_selected", "_upstream", "disconnects", "latency", "ttft")

    def __init__(self, path: str) -> None:
        self._path = path
        self._requests: dict[int, Counter] = {}
        self._selected: dict[str, Counter] = {}
        self._upstream: dict[str, Histogram] = {}
        self.latency = LATENCY.labels(path)
        self.ttft = TTFT.labels(path)
        self.disconnects = DISCONNECTS.labels(path)

    def requests(self, status: int) -> Counter:
        child = self._requests.get(status)
        if child is None:
            child = self._requests[status] = REQUESTS.labels(self._path, str(status))
        return child

    def selected(self, engine_type: str) -> Counter:
        child = self._selected.get(engine_type)
        if child is None:
            child = self._selected[engine_type] = UPSTREAM_SELECTED.labels(self._path, engine_type)
        return child

    def upstream(self, engine_type: str) -> Histogram:
        child = self._upstream.get(engine_type)
        if child is None:
            child = self._upstream[engine_type] = UPSTREAM_LATENCY.labels(self._path, engine_type)
        return child
