"""What happened between this gateway and each replica: one cell per path and replica, shown in several sums."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.registry import Collector

from cortex_gateway.domain.routing import Target
from cortex_gateway.instruments import Cell, Spread, add, new_metric


class UpstreamCell:
    """Figures of one path at one replica. Attempts add to them directly."""

    __slots__ = ("answers", "engine_type", "failures", "latency", "selected")

    def __init__(self, engine_type: str, bounds: Sequence[float]) -> None:
        self.engine_type = engine_type
        self.selected = 0
        self.answers = 0
        """Answers that began with 200."""
        self.failures = 0
        """No answer, or one that says that the engine failed."""
        self.latency = Spread(bounds)

    def absorb(self, other: "UpstreamCell") -> None:
        self.selected += other.selected
        self.answers += other.answers
        self.failures += other.failures
        self.latency.absorb(other.latency)


class PathUpstreams:
    """The cells of one path, by replica."""

    __slots__ = ("_bounds", "_cells", "gone")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._cells: dict[str, UpstreamCell] = {}
        self.gone: dict[str, UpstreamCell] = {}
        """Sums of replicas that are no more, by engine type, so that the totals never go back."""

    def of(self, target: Target) -> UpstreamCell:
        cell = self._cells.get(target.replica_id)
        if cell is None:
            cell = self._cells[target.replica_id] = UpstreamCell(target.engine_type.value, self._bounds)
        return cell

    def keep(self, replicas: Collection[str]) -> None:
        """Forget the names of the replicas that are gone, not what was counted of them."""
        for replica in [replica for replica in self._cells if replica not in replicas]:
            cell = self._cells.pop(replica)
            kept = self.gone.setdefault(cell.engine_type, UpstreamCell(cell.engine_type, self._bounds))
            kept.absorb(cell)

    def by_replica(self) -> Iterable[tuple[str, UpstreamCell]]:
        return self._cells.items()

    def by_engine(self) -> dict[str, UpstreamCell]:
        """Totals per engine type, those of replicas that are gone included."""
        totals: dict[str, UpstreamCell] = {}
        for cell in (*self.gone.values(), *self._cells.values()):
            totals.setdefault(cell.engine_type, UpstreamCell(cell.engine_type, self._bounds)).absorb(cell)
        return totals


class UpstreamMetrics(Collector):
    """The cells of all paths."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._paths: dict[str, PathUpstreams] = {}

    def path(self, path: str) -> PathUpstreams:
        """The cells of one path."""
        return self._paths.setdefault(path, PathUpstreams(self._bounds))

    def keep(self, replicas: Collection[str]) -> None:
        """See `PathUpstreams.keep`."""
        for upstreams in self._paths.values():
            upstreams.keep(replicas)

    def describe(self) -> list[Metric]:
        return list(self._families().values())

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at a scrape."""
        families = self._families()
        for path, upstreams in self._paths.items():
            _add_totals(families, path, upstreams)
            for replica, cell in upstreams.by_replica():
                labels = {"path": path, "replica": replica}
                add(families["gateway_upstream_latency_by_upstream_seconds"], labels, cell.latency)
                _count(families["gateway_upstream_selected_total"], labels, cell.selected)
                by_engine = {"path": path, "engine_type": cell.engine_type, "replica": replica}
                _count(families["gateway_upstream_selected_by_engine_total"], by_engine, cell.selected)
        yield from families.values()

    @staticmethod
    def _families() -> dict[str, Metric]:
        return {name: new_metric(name, help_text, kind) for name, kind, _, help_text in UPSTREAM_FAMILIES}


_BY_PATH = ("path",)
_BY_ENGINE = ("path", "engine_type")
_BY_REPLICA = ("path", "replica")
_ALL = ("path", "engine_type", "replica")
UPSTREAM_FAMILIES = (
    ("gateway_upstream_latency_seconds", "histogram", _BY_PATH, "Until the engine's answer began"),
    ("gateway_upstream_latency_by_engine_seconds", "histogram", _BY_ENGINE, "The same by kind of engine"),
    ("gateway_upstream_latency_by_upstream_seconds", "histogram", _BY_REPLICA, "The same by replica"),
    ("gateway_upstream_selected_total", "counter", _BY_REPLICA, "Attempts sent to a replica"),
    ("gateway_upstream_selected_by_engine_total", "counter", _ALL, "The same with its kind of engine"),
    ("gateway_upstream_success_total", "counter", _BY_PATH, "Answers of engines that began well"),
    ("gateway_upstream_error_total", "counter", _BY_PATH, "Attempts that met no answer, or a failure of the engine"),
)
"""Name, kind, labels, help."""


def _add_totals(families: dict[str, Metric], path: str, upstreams: PathUpstreams) -> None:
    total: UpstreamCell | None = None
    for engine_type, cell in upstreams.by_engine().items():
        labels = {"path": path, "engine_type": engine_type}
        add(families["gateway_upstream_latency_by_engine_seconds"], labels, cell.latency)
        if total is None:
            total = cell
        else:
            total.absorb(cell)
    if total is not None:
        labels = {"path": path}
        add(families["gateway_upstream_latency_seconds"], labels, total.latency)
        _count(families["gateway_upstream_success_total"], labels, total.answers)
        _count(families["gateway_upstream_error_total"], labels, total.failures)


def _count(metric: Metric, labels: dict[str, str], value: int) -> None:
    cell = Cell()
    cell.value = float(value)
    add(metric, labels, cell)
