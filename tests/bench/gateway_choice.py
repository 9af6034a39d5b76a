"""What the gateway's choice of a replica costs: nanoseconds per choice, and per request from `open` to `close`.

python tests/bench/gateway_choice.py
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import RoutingPolicy
from cortex_gateway.domain.choice import Figures, Wish, build_ring, choose, ring_point
from cortex_gateway.domain.prefix import conversation_of
from cortex_gateway.domain.routing import Keys, RoutingTable, build_table
from cortex_gateway.fleet import Affinity
from cortex_gateway.forwarding import Call, Dispatcher, Limits
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import UpstreamRequest

ROUNDS = 40
REPLICAS = (4, 64)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHAT = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"stream":true}'


def best(run: Callable[[int], None], count: int) -> float:
    """Nanoseconds of CPU per call, of the best round: other programs only ever add."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        run(count)
        times.append((time.thread_time_ns() - began) / count)
    return min(times)


def choices(count: int) -> None:
    figures = Figures([n % 3 for n in range(count)], [8] * count)
    ring = build_ring([f"replica-{n}" for n in range(count)])
    points = [ring_point(b"%d" % n) for n in range(1024)]

    def plain(policy: RoutingPolicy) -> Callable[[int], None]:
        def run(times: int) -> None:
            for turn in range(times):
                choose(policy, figures, turn)

        return run

    def wished(factor: float) -> Callable[[int], None]:
        def run(times: int) -> None:
            for turn in range(times):
                choose(RoutingPolicy.PREFIX_AFFINITY, figures, turn, (), Wish(ring, points[turn & 1023], factor))

        return run

    print(f"{count:3d} replicas: round_robin {best(plain(RoutingPolicy.ROUND_ROBIN), 4_000):6.0f} ns")
    print(f"{count:3d} replicas: least_loaded {best(plain(RoutingPolicy.LEAST_LOADED), 4_000):5.0f} ns")
    print(f"{count:3d} replicas: bounded load {best(wished(1.25), 2_000):5.0f} ns")
    print(f"{count:3d} replicas: session {best(wished(float('inf')), 2_000):10.0f} ns")
    print(
        f"{count:3d} replicas: build_ring {best(lambda times: [build_ring([f'r{n}' for n in range(count)]) for _ in range(times)] and None, 5) / 1000:7.0f} us"
    )


def conversations() -> None:
    for size in (400, 4_000, 40_000, 4_000_000):
        body = CHAT % (b"x" * size)

        def run(times: int, body: bytes = body) -> None:
            for _ in range(times):
                conversation_of(body, 16 * 1024)

        print(f"conversation_of a body of {size:7d} bytes: {best(run, 200) / 1000:6.2f} us")


def table(count: int, policy: RoutingPolicy) -> RoutingTable:
    model = ModelDocumentV1.model_validate(
        {
            "aggregateversion": 1,
            "id": "m",
            "name": "m",
            "served_model_name": "m",
            "engine_type": "vllm",
            "desired_state": "running",
            "routing_policy": policy,
        }
    )
    common: dict[str, Any] = {"aggregateversion": 1, "model_id": "m", "spec_hash": "h", "since": NOW}
    replicas = {
        f"m-{n}": ReplicaDocumentV1(
            id=f"m-{n}",  # type: ignore[arg-type]
            ordinal=n,
            engine_type="vllm",  # type: ignore[arg-type]
            node="n",  # type: ignore[arg-type]
            runtime="process",  # type: ignore[arg-type]
            state="started",  # type: ignore[arg-type]
            endpoint=f"http://10.0.0.1:{4000 + n}",
            **common,
        )
        for n in range(count)
    }
    verdicts = {
        key: VerdictDocumentV1(replica_id=key, endpoint="http://e", verdict="healthy", **common)  # type: ignore[arg-type]
        for key in replicas
    }
    return build_table({"m": model}, replicas, verdicts, Keys(lambda one, other: "k", lambda sealed: None))


class Response:
    status = 200

    def header(self, name: bytes) -> bytes | None:
        return None

    def close(self) -> None: ...


class Client:
    async def post(self, endpoint: object, request: object) -> Response:
        return RESPONSE


RESPONSE = Response()
REQUEST = UpstreamRequest("/v1/chat/completions", b"{}", 300.0, 300.0)
METRICS = RouteMetrics("/bench")


async def requests(count: int, policy: RoutingPolicy, affinity: Affinity | None, times: int = 1_000) -> float:
    """Microseconds of the dispatcher per request: place, choice, attempt, close."""
    projection: Any = SimpleNamespace(table=table(count, policy))
    client: Any = Client()
    hints: Any = None
    dispatcher = Dispatcher(projection, client, hints, Limits())
    rounds: list[float] = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(times):
            call = Call("m", False, "r", METRICS, lambda route, target: REQUEST, key_id="k", affinity=affinity)
            (await dispatcher.open(call)).close()
        rounds.append((time.thread_time_ns() - began) / times / 1000)
    return min(rounds)


def main() -> None:
    for count in REPLICAS:
        choices(count)
    conversations()
    body = Affinity(body=CHAT % (b"x" * 400))
    for count in REPLICAS:
        for policy, affinity in (
            (RoutingPolicy.LEAST_LOADED, None),
            (RoutingPolicy.ROUND_ROBIN, None),
            (RoutingPolicy.PREFIX_AFFINITY, body),
            (RoutingPolicy.LEAST_LOADED, Affinity(session=b"someone")),
        ):
            kind = "session" if affinity is not None and affinity.session else policy.value
            cost = asyncio.run(requests(count, policy, affinity))
            print(f"{count:3d} replicas: open and close with {kind:15} {cost:5.2f} us")


if __name__ == "__main__":
    main()
