"""What is told of requests and of the world: figures per model, spans, and what is looked up only when somebody scrapes."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector

from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import ReplicaState, Verdict
from cortex_contracts.external import external_replicas
from cortex_gateway import metrics
from cortex_gateway.domain.limits import Limit
from cortex_gateway.domain.routing import RoutingTable
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.instruments import new_metric
from cortex_gateway.model_metrics import ModelMetrics
from cortex_gateway.projection import Views
from cortex_gateway.settlement import Exchange
from cortex_gateway.tracing import RequestTracer
from cortex_kit.kv import Change

InFlight = Callable[[], Iterable[tuple[str, int]]]
"""Model and its requests at engines now."""
GONE = "gone"
WORLD_FAMILIES = (
    (
        "gateway_upstream_health",
        "gauge",
        ("engine_type", "model", "replica"),
        "1 for a replica whose verdict is healthy, 0 for one that runs without it",
    ),
    ("gateway_model_in_flight_requests", "gauge", ("model",), "Requests at engines, by model"),
    ("gateway_ratelimit_blocked_total", "counter", ("type",), "Requests refused by a limit of their key"),
    ("gateway_stream_blocked_total", "counter", (), "Streams refused because their key had too many"),
)
"""Name, kind, labels, help."""


class Observing(Collector):
    """One per gateway. `settled` is an observer of the bookkeeper, `on_swap` one of the projection."""

    def __init__(self, views: Views, tracer: RequestTracer, in_flight: InFlight) -> None:
        self._views = views
        self._tracer = tracer
        self._in_flight = in_flight
        self._models = ModelMetrics()
        views.verdicts.on_change(self._on_verdict)

    def settled(self, exchange: Exchange, data: UsageData) -> None:
        """See `settlement.Observer`."""
        self._models.settled(exchange, data)
        if exchange.permit is not None:
            metrics.LIMIT_ALLOWED.value += 1
        if exchange.trace is not None:
            self._tracer.settled(exchange, data)

    def on_swap(self, table: RoutingTable) -> None:
        """Forget the figures of what is gone, so that series do not grow for ever."""
        self._models.on_swap(table)
        metrics.forget_replicas(table, frozenset({*self._views.replicas.items, *self._views.verdicts.items}))

    @contextmanager
    def exported(self) -> Generator[None]:
        """Shown at /metrics within this context."""
        REGISTRY.register(self)
        try:
            yield
        finally:
            REGISTRY.unregister(self)

    def describe(self) -> list[Metric]:
        """Nothing in advance: the registry would ask for it when we register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at a scrape."""
        health, in_flight, blocked, streams = (new_metric(name, text, kind) for name, kind, _, text in WORLD_FAMILIES)
        models, verdicts = self._views.models.items, self._views.verdicts.items
        external = (replica for model in models.values() if model.external for replica in external_replicas(model))
        for replica in (*self._views.replicas.items.values(), *external):
            model = models.get(replica.model_id)
            if replica.state is ReplicaState.STARTED and model is not None:
                labels = {
                    "engine_type": replica.engine_type.value,
                    "model": model.served_model_name,
                    "replica": replica.id,
                }
                health.add_sample(health.name, labels, float(_is_healthy(replica, verdicts)))
        for name, count in self._in_flight():
            in_flight.add_sample(in_flight.name, {"model": name}, count)
        for (limit,), refusals in metrics.LIMIT_REFUSALS.items():
            blocked.add_sample(f"{blocked.name}_total", {"type": limit}, refusals.value)
            if limit == Limit.STREAMS.value:
                streams.add_sample(f"{streams.name}_total", {}, refusals.value)
        yield from (health, in_flight, blocked, streams)

    @staticmethod
    def _on_verdict(change: Change[VerdictDocumentV1]) -> None:
        was = change.old is not None and change.old.verdict is Verdict.HEALTHY
        verdict = change.new.verdict if change.new is not None else None
        if was and verdict is not Verdict.HEALTHY:
            metrics.DEGRADATIONS.labels(change.key, verdict.value if verdict is not None else GONE).inc()


def _is_healthy(replica: ReplicaDocumentV1, verdicts: Mapping[str, VerdictDocumentV1]) -> bool:
    verdict = verdicts.get(replica.id)
    return verdict is not None and verdict.spec_hash == replica.spec_hash and verdict.verdict is Verdict.HEALTHY
