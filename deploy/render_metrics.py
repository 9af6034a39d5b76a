"""Make the tables of metrics in docs/observability.md anew from the code; `--print` changes nothing and prints the page."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from cortex_gateway.instruments import Family
from cortex_gateway.observing import WORLD_FAMILIES
from cortex_gateway.upstream_metrics import UPSTREAM_FAMILIES
from cortex_health.adapters.exporter import LABELS, PREFIX
from cortex_health.domain.engine_metrics import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "observability.md"
PACKAGES = {
    "gateway": "cortex_gateway",
    "health": "cortex_health",
    "registry": "cortex_registry",
    "orchestrator": "cortex_orchestrator",
    "gguf-inspector": "cortex_gguf_inspector",
    "console": "cortex_console",
    "every service": "cortex_kit",
}
ENGINES = "engines"


class Row(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def modules_with_metrics(package: str) -> Iterator[str]:
    """Modules that declare metrics."""
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        spec = module.module_finder.find_spec(module.name, None)
        if spec is not None and spec.origin and module.name.rpartition(".")[2] != "__main__":
            source = Path(spec.origin).read_text()
            if re.search(r"from prometheus_client import .*(Counter|Gauge|Histogram)", source):
                yield module.name


def declared(package: str) -> Iterator[Row]:
    """What the modules of a package register when they are imported."""
    for name in modules_with_metrics(package):
        importlib.import_module(name)
    for collector in set(REGISTRY._collector_to_names):
        if isinstance(collector, Family):
            if package == "cortex_gateway":
                yield Row(collector.name, collector.kind, collector.label_names, collector.help_text)
        elif isinstance(collector, MetricWrapperBase) and home(collector) == package:
            suffix = "_total" if collector._type == "counter" else ""
            yield Row(collector._name + suffix, collector._type, tuple(collector._labelnames), collector._documentation)


def home(collector: MetricWrapperBase) -> str | None:
    """The package whose module holds it."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("cortex_") and any(value is collector for value in vars(module).values()):
            # Whoever imports it from somewhere else holds it, too: kit is imported by all, and by itself.
            return "cortex_kit" if in_kit(collector) else name.partition(".")[0]
    return None


def in_kit(collector: MetricWrapperBase) -> bool:
    return any(
        value is collector
        for name, module in tuple(sys.modules.items())
        if name.startswith("cortex_kit.")
        for value in vars(module).values()
    )


def tables() -> dict[str, list[Row]]:
    """Every metric, by who shows it."""
    rows = {service: list(declared(package)) for service, package in PACKAGES.items()}
    rows["gateway"] += [Row(*family) for family in (*UPSTREAM_FAMILIES, *WORLD_FAMILIES)]
    rows[ENGINES] = [Row(PREFIX + family.name, family.kind, LABELS, family.help) for family in FAMILIES]
    return {service: sorted(set(found)) for service, found in rows.items()}


def render_table(rows: Iterable[Row]) -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.meaning} |")
    return "\n".join(lines)


def render(page: str) -> str:
    """The page with every table between its marks replaced."""
    for service, rows in tables().items():
        mark = re.compile(rf"(<!-- metrics: {re.escape(service)} -->\n)(?:[^<]*\n)?(<!-- end -->)")
        if not mark.search(page):
            raise SystemExit(f"{PAGE.name} has no place for the metrics of {service}")
        table = render_table(rows)
        page = mark.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
    return page


if __name__ == "__main__":
    page = render(PAGE.read_text())
    if "--print" in sys.argv:
        sys.stdout.write(page)
    else:
        PAGE.write_text(page)
