"""Boards, alert rules and what Prometheus scrapes name only metrics and labels that the code has."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from cortex_gateway import instruments
from cortex_gateway.settings import Settings as Gateway
from cortex_gateway.upstream_metrics import UPSTREAM_FAMILIES
from cortex_gguf_inspector.settings import Settings as Inspector
from cortex_health.domain.engine_metrics import FAMILIES
from cortex_health.settings import Settings as Health
from cortex_orchestrator.settings import Settings as Orchestrator
from cortex_registry.settings import Settings as Registry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# Of Prometheus itself.
GIVEN = {"up": set[str]()}
TARGET_LABELS = {"job", "instance", "le"}
KEYWORDS = {
    "by",
    "without",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "e",
}
Metrics = dict[str, set[str]]


@cache
def metrics() -> Metrics:
    """Every sample name of the code with the labels of its metric."""
    found = dict(GIVEN)
    for name, kind, labels in declared():
        found |= {name.removesuffix("_total") + suffix: labels for suffix in SUFFIXES[kind]}
    for family in REGISTRY.collect():  # what has no labels may be declared in another way
        for suffix in SUFFIXES.get(family.type, ()):
            found.setdefault(family.name + suffix, set())
    return found


def declared() -> Iterator[tuple[str, str, set[str]]]:
    """Name, kind and labels of each metric, from the objects that the services show at /metrics."""
    for path in [*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("libs/kit/src/**/*.py")]:
        if "prometheus_client" not in path.read_text():
            continue
        module = importlib.import_module(".".join(path.relative_to(path.parents[_depth(path)]).with_suffix("").parts))
        for one in vars(module).values():
            if isinstance(one, MetricWrapperBase):
                [family] = list(one.describe())
                yield family.name, family.type, set(one._labelnames)  # pyright: ignore[reportPrivateUsage]
            elif isinstance(one, instruments.Family):
                yield one.name, one.kind, set(one.label_names)
    for name, kind, labels, _ in UPSTREAM_FAMILIES:
        yield name, kind, set(labels)
    for family in FAMILIES:
        yield f"cortex_engine_{family.name}", family.kind, {"engine_type", "model", "replica"}


def _depth(path: Path) -> int:
    """How far above a module the folder `src` is."""
    return next(number for number, parent in enumerate(path.parents) if parent.name == "src")


def complaints(expression: str, known: Metrics) -> list[str]:
    """Names and labels of a PromQL expression that do not exist."""
    used: set[str] = set()
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for group in re.findall(r"\{([^}]*)\}", text):
        used |= set(re.findall(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)", group))
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text):
        used |= {label.strip() for label in group.split(",") if label.strip()}
    text = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", text)
    names = set(re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?!\w)(?!\s*\()", text)) - KEYWORDS
    labels = TARGET_LABELS.union(*(known.get(name, set()) for name in names))
    return [f"no metric {name}" for name in sorted(names - known.keys())] + [
        f"no label {label} on {', '.join(sorted(names))}" for label in sorted(used - labels)
    ]


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum by (status) (rate(known_total[5m])) / sum(rate(known_total[5m])) > 0.05", []),
        ('known_total{status=~"5..", job="x"} > 1e6 and up == 0', []),
        ("rate(renamed_total[5m])", ["no metric renamed_total"]),
        ("histogram_quantile(0.9, sum by (le, route) (rate(known_total[1m])))", ["no label route on known_total"]),
        ('known_total{code="x"}', ["no label code on known_total"]),
    ],
)
def test_a_renamed_metric_or_label_is_noticed(expression: str, wrong: list[str]) -> None:
    assert complaints(expression, {"known_total": {"status"}, "up": set()}) == wrong


def test_the_metrics_of_the_code_are_found() -> None:
    known = metrics()
    assert known["gateway_requests_total"] >= {"route", "status"}
    assert known["gateway_request_latency_seconds_bucket"] >= {"route"}
    assert known["cortex_kv_items"] == {"bucket"}
    assert known["cortex_engine_generated_tokens_total"] == {"engine_type", "model", "replica"}
    assert len(known) > 80


def boards() -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana" / "boards").glob("*.json"))]


def queries(board: Any) -> list[tuple[str, str]]:
    """(PromQL, legend) of every panel, with Grafana's variables filled in."""
    fill = {"$__rate_interval": "1m", "$__range": "3h", "$model": ".*"}
    found: list[tuple[str, str]] = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in fill.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            found.append((expression, target["legendFormat"]))
    return found


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_a_board_names_only_metrics_and_labels_that_exist(board: Any) -> None:
    asked = queries(board)
    assert len(asked) >= 8
    assert {expression: wrong for expression, _ in asked if (wrong := complaints(expression, metrics()))} == {}
    for expression, legend in asked:
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        assert shown <= kept, f"{legend} of {expression}"
    for variable in board["templating"]["list"]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        assert label in metrics()[name]


def test_boards_do_not_overlap_and_have_their_datasource() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/cortex.yaml").read_text())["datasources"]
    assert len({board["uid"] for board in boards()}) == len(boards()) == 4
    for board in boards():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in panels
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken))
        asked = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())}
        assert asked <= {source["uid"] for source in sources}


def test_the_boards_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY / "grafana")  # as for a script that is started there
    render = _load(DEPLOY / "grafana" / "render_boards.py")
    for board in render.BOARDS:
        path = DEPLOY / "grafana" / "boards" / f"{board.uid.removeprefix('cortex-')}.json"
        assert path.read_text() == render.render(board), "run make docs"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rules() -> list[Any]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_only_metrics_and_labels_that_exist_and_says_what_to_do(rule: Any) -> None:
    assert complaints(rule["expr"], metrics()) == []
    assert rule["labels"]["severity"] in ("page", "warn")
    assert rule["annotations"].keys() == {"summary", "fix"}


def test_prometheus_scrapes_every_service_at_its_port() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    ports = {
        name: sd["port"]
        for job in configuration["scrape_configs"]
        for sd in job.get("dns_sd_configs", ())
        for name in sd["names"]
    }
    services = {"gateway": Gateway, "registry": Registry, "health": Health, "gguf-inspector": Inspector}
    services |= {"orchestrator": Orchestrator, "orchestrator-gpu": Orchestrator}
    expected = {name: kind.model_fields["port"].default for name, kind in services.items()}
    assert {name: port for name, port in ports.items() if name in expected} == expected
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    assert ports.keys() <= compose.keys()
    engines = next(job for job in configuration["scrape_configs"] if job["job_name"] == "cortex-engine")
    assert engines["http_sd_configs"][0]["url"] == f"http://health:{expected['health']}/sd/targets"


def test_the_collector_uses_what_it_defines() -> None:
    collector = yaml.safe_load((DEPLOY / "otel" / "collector.yaml").read_text())
    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) == set(collector[part])
        assert pipeline["processors"][0] == "memory_limiter"
    assert set(collector["service"]["extensions"]) == set(collector["extensions"])
