"""Metrics for the hot path: plain attributes while a request runs, Prometheus' own types made when somebody scrapes.

prometheus_client takes a lock per change (0.3 us for a counter, 0.9 us for a histogram on the machine where this was
measured, against 0.04 and 0.15). The gateway changes and shows its figures on one event loop, which needs none.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector, CollectorRegistry


class Cell:
    """A number: a counter if nobody lowers it, else a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


class Spread:
    """A histogram: counts per bucket, and the sum. `bounds` ascend; what is above the last one has a bucket of its own."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def absorb(self, other: "Spread") -> None:
        """Add another one with the same bounds."""
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


InstrumentT = TypeVar("InstrumentT", Cell, Spread)


class Family(Collector, Generic[InstrumentT]):
    """A metric and its children by label values, which have to come from a bounded set."""

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        kind: str,
        make: Callable[[], InstrumentT],
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(labels)
        self.kind = kind
        self._make: Callable[[], InstrumentT] = make
        self._children: dict[tuple[str, ...], InstrumentT] = {}
        if registry is not None:
            registry.register(self)

    def labels(self, *values: str) -> InstrumentT:
        """The child with these label values. Keep it: looking it up costs more than using it."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}")
            child = self._children[values] = self._make()
        return child

    def keep(self, wanted: Callable[[tuple[str, ...]], bool]) -> None:
        """Forget the children whose label values are not wanted any more."""
        for values in [values for values in self._children if not wanted(values)]:
            del self._children[values]

    def items(self) -> Iterator[tuple[tuple[str, ...], InstrumentT]]:
        """Label values and child."""
        yield from self._children.items()

    def describe(self) -> list[Metric]:
        return [self._metric()]

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at a scrape."""
        metric = self._metric()
        for values, child in self._children.items():
            add(metric, dict(zip(self.label_names, values, strict=True)), child)
        yield metric

    def _metric(self) -> Metric:
        return new_metric(self.name, self.help_text, self.kind)


def new_metric(name: str, help_text: str, kind: str) -> Metric:
    """An empty family as the registry wants it."""
    return Metric(name.removesuffix("_total") if kind == "counter" else name, help_text, kind)


def add(metric: Metric, labels: dict[str, str], child: Cell | Spread) -> None:
    """One child's samples."""
    if isinstance(child, Cell):
        suffix = "_total" if metric.type == "counter" else ""
        metric.add_sample(metric.name + suffix, labels, child.value)
        return
    below = 0
    bounds = [*(str(float(bound)) for bound in child.bounds), "+Inf"]
    for text, count in zip(bounds, child.counts, strict=True):
        below += count
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": text}, below)
    metric.add_sample(f"{metric.name}_count", labels, below)
    metric.add_sample(f"{metric.name}_sum", labels, child.total)


def counters(name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Cell]:
    """A counter; its name ends in `_total`."""
    return Family(name, help_text, labels, "counter", Cell)


def gauges(name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Cell]:
    """A gauge."""
    return Family(name, help_text, labels, "gauge", Cell)


def histograms(name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]) -> Family[Spread]:
    """A histogram."""
    return Family(name, help_text, labels, "histogram", lambda: Spread(bounds))
