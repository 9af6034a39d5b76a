"""What metrics and traces cost one request of the gateway: nanoseconds of CPU of each step, best of several rounds.

.venv/bin/python tests/bench/metrics_cost.py
"""

import sys
import time
import timeit
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.routing import Endpoint, Target
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.instruments import Cell, Spread
from cortex_gateway.metrics import LATENCY, RouteMetrics
from cortex_gateway.model_metrics import ModelMetrics
from cortex_gateway.ports import Request
from cortex_gateway.tracing import RequestTracer
from cortex_kit.tracing import Sampler, Tracing, TracingConfig

ROUNDS, CALLS = 7, 50_000
PATH = "/v1/chat/completions"


def measure(name: str, call: Any) -> float:
    best = min(timeit.repeat(call, number=CALLS, repeat=ROUNDS, timer=time.process_time)) / CALLS * 1e9
    print(f"{name:58} {best:8.0f} ns")
    return best


def request(*extra: tuple[bytes, bytes]) -> Request:
    names = (b"host", b"content-type", b"content-length", b"authorization", b"user-agent", b"accept", b"connection")
    return Request("POST", PATH, [*((name, b"x") for name in names), *extra], "127.0.0.1", None)  # type: ignore[arg-type]


def exchange_and_data() -> tuple[Any, UsageData]:
    model = SimpleNamespace(id="m", served_model_name="gpt", engine_type=EngineType.VLLM)
    exchange: Any = SimpleNamespace(route=SimpleNamespace(model=model, engine_type=EngineType.VLLM), trace=None)
    now = datetime.now(UTC)
    data = UsageData(
        "r", "k", None, None, "m", "gpt", "vllm", "m-0", "generate", PATH, True, 200, "completed",
        10, 0, 100, False, 12.0, 900.0, now,
    )  # fmt: skip
    return exchange, data


def main() -> None:
    registry = CollectorRegistry()
    counter = Counter("a", "a", ["x"], registry=registry).labels("1")
    histogram = Histogram("b", "b", ["x"], registry=registry).labels("1")
    cell, spread = Cell(), Spread(LATENCY.labels(PATH).bounds)
    print("One change")
    measure("prometheus_client: counter", counter.inc)
    measure("prometheus_client: histogram", lambda: histogram.observe(0.07))
    measure("ours: counter", cell.inc)
    measure("ours: histogram", lambda: spread.observe(0.07))

    route = RouteMetrics(PATH)
    target = Target("m-0", EngineType.VLLM, Endpoint("h", 1, "", b""), "i")  # type: ignore[arg-type]
    models = ModelMetrics()
    exchange, data = exchange_and_data()

    def pipeline() -> None:
        route.requests(200).inc()
        route.latency.observe(0.9)
        route.ttft.observe(0.012)

    def attempt() -> None:
        figures = route.upstream(target)
        figures.selected += 1
        figures.latency.observe(0.01)
        figures.answers += 1

    print("One request")
    off = RequestTracer(None)
    plain, traced = request(), request((b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"))
    parts = [
        measure("route: status, duration, time to first byte", pipeline),
        measure("attempt: replica chosen, answered, latency", attempt),
        measure("settlement: tokens, times and outcome of the model", lambda: models.settled(exchange, data)),
        measure("tracing off, no traceparent", lambda: off.begin(plain, PATH)),
    ]
    print(f"{'sum: everything on but traces':58} {sum(parts):8.0f} ns")
    print("Traces")
    measure("tracing off, a traceparent is passed on", lambda: off.begin(traced, PATH))
    tracing = Tracing(TracingConfig("bench", "1", "http://127.0.0.1:9/v1/traces", Sampler.PARENT_ALWAYS_OFF))
    on = RequestTracer(tracing)
    measure("tracing on, not sampled, no traceparent", lambda: on.begin(plain, PATH))
    measure("tracing on, not sampled by its parent", lambda: on.begin(traced, PATH))


if __name__ == "__main__":
    main()
    sys.exit(0)
