"""Cheap instruments show what prometheus_client would, and forget what is gone without going back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.routing import Endpoint, Target
from cortex_gateway.instruments import Cell, Family, Spread
from cortex_gateway.upstream_metrics import UpstreamMetrics

BOUNDS = (0.1, 1, 10)


def page(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


@given(st.lists(st.floats(0, 20)), st.lists(st.floats(0, 9)))
def test_the_page_is_that_of_prometheus_client(values: list[float], amounts: list[float]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Family("x_seconds", "Help", ["a", "b"], "histogram", lambda: Spread(BOUNDS), ours).labels("1", 'q"\n')
    cell = Family("y_total", "Help", ["a"], "counter", Cell, ours).labels("1")
    histogram = Histogram("x_seconds", "Help", ["a", "b"], buckets=BOUNDS, registry=theirs).labels("1", 'q"\n')
    counter = Counter("y_total", "Help", ["a"], registry=theirs).labels("1")
    for value in values:
        spread.observe(value)
        histogram.observe(value)
    for amount in amounts:
        cell.inc(amount)
        counter.inc(amount)
    assert page(ours) == page(theirs)


def test_a_child_is_made_once_and_has_every_label():
    family = Family("z_total", "Help", ["a"], "counter", Cell, None)
    assert family.labels("1") is family.labels("1")
    with pytest.raises(ValueError, match="labels"):
        family.labels("1", "2")
    family.labels("2")
    family.keep(lambda values: values[0] == "2")
    assert [values for values, _ in family.items()] == [("2",)]


def target(replica: str, engine_type: EngineType = EngineType.VLLM) -> Target:
    return Target(replica, engine_type, Endpoint("127.0.0.1", 1, "", b""), replica)  # type: ignore[arg-type]


def test_a_replica_that_is_gone_leaves_its_counts_to_the_totals_and_its_name_to_nobody():
    registry = CollectorRegistry()
    upstreams = UpstreamMetrics(BOUNDS)
    registry.register(upstreams)
    path = upstreams.path("/v1/x")
    for replica in ("one", "two"):
        cell = path.of(target(replica))
        cell.selected += 2
        cell.answers += 1
        cell.failures += 1
        cell.latency.observe(0.5)
    labels = {"path": "/v1/x"}
    upstreams.keep({"two"})
    for _ in range(2):  # a scrape changes nothing
        assert registry.get_sample_value("gateway_upstream_selected_total", {**labels, "replica": "one"}) is None
        assert registry.get_sample_value("gateway_upstream_selected_total", {**labels, "replica": "two"}) == 2
        assert registry.get_sample_value("gateway_upstream_success_total", labels) == 2
        assert registry.get_sample_value("gateway_upstream_error_total", labels) == 2
        assert registry.get_sample_value("gateway_upstream_latency_seconds_count", labels) == 2
        by_engine = {**labels, "engine_type": "vllm"}
        assert registry.get_sample_value("gateway_upstream_latency_by_engine_seconds_sum", by_engine) == 1.0
