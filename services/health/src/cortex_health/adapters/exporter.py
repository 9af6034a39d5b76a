"""The port `Exporter`: engines' metrics under our names, made when somebody scrapes."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client import Metric
from prometheus_client.registry import Collector

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import Verdict
from cortex_health.domain.engine_metrics import FAMILIES, EngineSample, Family, HistogramValue, with_rates
from cortex_health.domain.verdicts import HealthState
from cortex_kit.clock import Clock

PREFIX = "cortex_engine_"
LABELS = ("engine_type", "model", "replica")
MAX_NAME = 128
ModelName = Callable[[ModelId], str | None]


@dataclass(slots=True)
class _Shown:
    replica: ReplicaDocumentV1
    state: HealthState | None = None
    sample: EngineSample | None = None
    sampled_at: float = 0.0
    readable: bool | None = None


class EngineExporter(Collector):
    """One entry per replica that this member probes, and no other: the series are as many as the engines."""

    def __init__(self, clock: Clock, model_name: ModelName) -> None:
        self._clock = clock
        self._model_name = model_name
        self._shown: dict[str, _Shown] = {}

    def show(self, replica: ReplicaDocumentV1, state: HealthState) -> None:
        """See `ports.Exporter`."""
        shown = self._shown.setdefault(replica.id, _Shown(replica))
        shown.replica, shown.state = replica, state

    def sampled(self, replica: ReplicaDocumentV1, sample: EngineSample | None) -> None:
        """See `ports.Exporter`. An engine that cannot be read shows no figures of before."""
        shown = self._shown.setdefault(replica.id, _Shown(replica))
        shown.readable = sample is not None
        now = self._clock.monotonic()
        shown.sample = None if sample is None else with_rates(sample, shown.sample, now - shown.sampled_at)
        shown.sampled_at = now

    def drop(self, replica_id: ReplicaId) -> None:
        """See `ports.Exporter`."""
        self._shown.pop(replica_id, None)

    def describe(self) -> list[Metric]:
        """Nothing in advance: the registry would ask for it when we register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at a scrape."""
        rows = [(self._labels(shown), _values(shown), shown.sample) for shown in self._shown.values()]
        for family in FAMILIES:
            metric = Metric(PREFIX + family.name.removesuffix("_total"), family.help, family.kind)
            for labels, values, sample in rows:
                _add(metric, family, labels, values, sample)
            if metric.samples:
                yield metric

    def _labels(self, shown: _Shown) -> dict[str, str]:
        replica = shown.replica
        model = self._model_name(replica.model_id) or replica.model_id
        return {"engine_type": replica.engine_type.value, "model": model[:MAX_NAME], "replica": replica.id}


_NOTHING: Mapping[str, float] = MappingProxyType({})


def _values(shown: _Shown) -> Mapping[str, float]:
    values = dict(shown.sample.values if shown.sample is not None else _NOTHING)
    state = shown.state
    told: dict[str, float | None] = {"up": None if shown.readable is None else float(shown.readable)}
    if state is not None:
        told["healthy"] = float(state.verdict is Verdict.HEALTHY)
        told["slots"], told["context_tokens"] = state.load.slots_total, state.load.context_per_slot
    if shown.sample is not None:
        load = shown.sample.load
        told["requests_running"], told["requests_waiting"] = load.running, load.waiting
        told["kv_cache_usage_ratio"] = load.kv_usage
    return values | {name: float(value) for name, value in told.items() if value is not None}


def _add(
    metric: Metric, family: Family, labels: dict[str, str], values: Mapping[str, float], sample: EngineSample | None
) -> None:
    if family.kind == "histogram":
        histogram = sample.histograms.get(family.name) if sample is not None else None
        if histogram is not None:
            _add_histogram(metric, PREFIX + family.name, labels, histogram)
    elif family.name in values:
        metric.add_sample(PREFIX + family.name, labels, values[family.name])


def _add_histogram(metric: Metric, name: str, labels: dict[str, str], histogram: HistogramValue) -> None:
    for upper, count in histogram.buckets:
        bound = "+Inf" if upper == math.inf else str(upper)
        metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{name}_count", labels, histogram.buckets[-1][1])
    metric.add_sample(f"{name}_sum", labels, histogram.total)
