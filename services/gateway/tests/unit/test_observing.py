"""What is told to whoever scrapes: bounded by the models and replicas that there are."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.routing import Keys, build_table
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.model_metrics import UNKNOWN
from cortex_gateway.observing import Observing
from cortex_gateway.tracing import RequestTracer
from cortex_kit.kv import Change

NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEYS = Keys(lambda *_: "key", lambda _: None)


class View:
    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.callback: Callable[[Change[Any]], None] = lambda _: None

    def on_change(self, callback: Callable[[Change[Any]], None]) -> None:
        self.callback = callback


@pytest.fixture
def views() -> Any:
    return SimpleNamespace(models=View(), keys=View(), replicas=View(), verdicts=View())


@pytest.fixture
def observing(views: Any):
    made = Observing(views, RequestTracer(None), lambda: [("served-m1", 3)])
    with made.exported():
        yield made


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def settled(observing: Observing, model: Any, **fields: object) -> None:
    base: dict[str, Any] = {
        "request_id": "r",
        "key_id": "k",
        "user_id": None,
        "org_id": None,
        "model_id": "m1",
        "model": "whatever the client wrote",
        "engine_type": None,
        "replica_id": None,
        "task": "generate",
        "route": "/v1/completions",
        "stream": True,
        "status": 200,
        "outcome": "completed",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 11,
        "estimated": False,
        "ttft_ms": 100.0,
        "duration_ms": 1100.0,
        "started_at": NOW,
    }
    route = SimpleNamespace(model=model) if model is not None else None
    observing.settled(SimpleNamespace(route=route, trace=None, permit=None), UsageData(**base | fields))  # type: ignore[arg-type]


def test_a_settled_stream_is_told_by_the_served_name_of_its_model(observing: Observing, model: Callable):
    labels = {"model": "served-tokens", "engine_type": "llamacpp"}
    document = model("tokens")
    settled(observing, document)
    settled(observing, document, outcome="client_disconnected")
    assert value("gateway_tokens_total", kind="prompt", **labels) == 20
    assert value("gateway_tokens_total", kind="cached", **labels) == 8
    assert value("gateway_inter_token_seconds_sum", **labels) == pytest.approx(0.2)
    assert value("gateway_model_requests_total", outcome="client_disconnected", **labels) == 1
    cancelled = {"model": "served-tokens", "reason": "client_disconnected", "path": "/v1/completions"}
    assert value("gateway_request_cancellations_total", **cancelled) == 1


def test_a_stream_of_one_token_has_no_time_between_tokens(observing: Observing, model: Callable):
    document = model("short")
    settled(observing, document, completion_tokens=1)
    settled(observing, document, stream=False)
    assert value("gateway_inter_token_seconds_count", model="served-short", engine_type="llamacpp") == 0


def test_what_no_model_is_served_under_is_unknown(observing: Observing):
    before = value("gateway_model_requests_total", model=UNKNOWN, engine_type=UNKNOWN, outcome="rejected") or 0
    settled(observing, None, outcome="rejected", status=404)
    after = value("gateway_model_requests_total", model=UNKNOWN, engine_type=UNKNOWN, outcome="rejected")
    assert after == before + 1
    names = {sample.labels.get("model") for family in REGISTRY.collect() for sample in family.samples}
    assert "whatever the client wrote" not in names


def test_a_model_that_is_gone_or_renamed_loses_its_series(observing: Observing, model: Callable):
    document = model("m1")
    settled(observing, document)
    labels = {"model": "served-m1", "engine_type": "llamacpp", "kind": "prompt"}
    observing.on_swap(build_table({"m1": document}, {}, {}, KEYS))
    assert value("gateway_tokens_total", **labels) == 10
    renamed = model("m1", served_model_name="new-name")
    observing.on_swap(build_table({"m1": renamed}, {}, {}, KEYS))
    assert value("gateway_tokens_total", **labels) is None
    settled(observing, renamed)
    assert value("gateway_tokens_total", **labels | {"model": "new-name"}) == 10
    observing.on_swap(build_table({}, {}, {}, KEYS))
    assert value("gateway_tokens_total", **labels | {"model": "new-name"}) is None


def test_the_health_of_every_replica_is_told_those_of_others_included(
    observing: Observing, views: Any, model: Callable, replica: Callable, verdict: Callable
):
    external = model("ext", external=[{"url": "http://elsewhere.example/v1"}], engine_type="vllm")
    views.models.items = {"m1": model(), "ext": external}
    views.replicas.items = {f"m1-{n}": replica(ordinal=n) for n in range(3)}
    views.replicas.items["m1-2"] = replica(ordinal=2, state="failed")
    views.verdicts.items = {"m1-0": verdict(), "m1-1": verdict(ordinal=1, spec_hash="older")}
    own = {"engine_type": EngineType.LLAMACPP.value, "model": "served-m1"}
    assert value("gateway_upstream_health", replica="m1-0", **own) == 1
    assert value("gateway_upstream_health", replica="m1-1", **own) == 0
    assert value("gateway_upstream_health", replica="m1-2", **own) is None
    assert value("gateway_upstream_health", replica="ext-0", engine_type="vllm", model="served-ext") == 0
    assert value("gateway_model_in_flight_requests", model="served-m1") == 3


def test_a_replica_that_stops_being_healthy_is_counted_once(observing: Observing, views: Any, verdict: Callable):
    healthy, unhealthy = verdict("deg"), verdict("deg", verdict="unhealthy")
    for old, new in (
        (None, healthy),
        (healthy, unhealthy),
        (unhealthy, unhealthy),
        (unhealthy, healthy),
        (healthy, None),
    ):
        views.verdicts.callback(Change("deg-0", old, new))
    assert value("gateway_upstream_health_degradation_total", replica="deg-0", reason="unhealthy") == 1
    assert value("gateway_upstream_health_degradation_total", replica="deg-0", reason="gone") == 1
    assert observing is not None
