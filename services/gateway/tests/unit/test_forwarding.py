"""Choice, retries and waiting, with a fake engine client and a fake projection."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cortex_contracts.base import ModelId, ReplicaId
from cortex_gateway.domain.balancing import BreakerPolicy
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.routing import Endpoint, Keys, Route, RoutingTable, build_table
from cortex_gateway.forwarding import Answer, Call, Dispatcher, Limits
from cortex_gateway.metrics import RouteMetrics
from cortex_gateway.ports import Failure, UpstreamError, UpstreamRequest
from cortex_gateway.waiting import WaitPolicy

LOADING = (503, b'{"error":{"message":"Loading model","code":503}}')
OK = (200, b"{}")
METRICS = RouteMetrics("/test/forwarding")


class FakeResponse:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        self.closed = False

    def header(self, name: bytes) -> bytes | None:
        return b"application/json" if name == b"content-type" else None

    async def read(self) -> bytes:
        body, self.body = self.body, b""
        return body

    async def read_all(self, limit: int) -> bytes:
        return await self.read()

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """Answers per port, in order; the last answer repeats."""

    def __init__(self, script: dict[int, list[tuple[int, bytes] | Failure]]) -> None:
        self.script = script
        self.calls: list[int] = []
        self.responses: list[FakeResponse] = []

    async def post(self, endpoint: Endpoint, request: UpstreamRequest) -> FakeResponse:
        self.calls.append(endpoint.port)
        answers = self.script[endpoint.port]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Failure):
            raise UpstreamError(answer, "fake")
        response = FakeResponse(*answer)
        self.responses.append(response)
        return response


class FakeProjection:
    def __init__(self, table: RoutingTable) -> None:
        self.table = table
        self.changed = asyncio.Event()

    def swap(self, table: RoutingTable) -> None:
        self.table = table
        self.changed.set()

    async def wait_change(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self.changed.wait(), timeout_s)
        except TimeoutError:
            return


class FakeHints:
    def __init__(self) -> None:
        self.suspected: list[str] = []
        self.demanded: list[str] = []

    def suspect(self, replica_id: ReplicaId, model_id: ModelId, reason: str) -> None:
        self.suspected.append(replica_id)

    def demand(self, route: Route) -> None:
        self.demanded.append(route.model.id)


@pytest.fixture
def table(model, replica, verdict) -> Callable[..., RoutingTable]:
    def make(replicas: int = 1, **fields: object) -> RoutingTable:
        return build_table(
            {"m1": model(**fields)},
            {f"m1-{n}": replica(ordinal=n) for n in range(replicas)},
            {f"m1-{n}": verdict(ordinal=n) for n in range(replicas)},
            Keys(lambda replica_id, spec_hash: "k", lambda sealed: None),
        )

    return make


class Bench:
    def __init__(self, table: RoutingTable, script, *, wait_s: float = 0.2, max_waiters: int = 10, limits=Limits()) -> None:
        self.projection = FakeProjection(table)
        self.client = FakeClient(script)
        self.hints = FakeHints()
        wait = WaitPolicy(wait_s, max_waiters, demand_wait_s=wait_s, max_demand_waiters=max_waiters, ping_s=0.02)
        limits = replace(limits, max_attempts=3, breaker=BreakerPolicy(failures=3, cooldown_s=0.3), wait=wait)
        self.dispatcher = Dispatcher(self.projection, self.client, self.hints, limits)  # type: ignore[arg-type]

    async def open(self) -> Answer:
        request = UpstreamRequest("/v1/x", b"{}", 7.0, 1.0)
        return await self.dispatcher.open(Call("served-m1", False, "r", METRICS, lambda route, target: request))

    async def refused(self) -> ApiError:
        with pytest.raises(ApiError) as refused:
            await self.open()
        return refused.value


async def test_least_loaded_spreads_open_answers(table):
    bench = Bench(table(3), {4000: [OK], 4001: [OK], 4002: [OK]})
    answers = [await bench.open() for _ in range(3)]
    assert sorted(bench.client.calls) == [4000, 4001, 4002]
    answers[1].close()
    await bench.open()
    assert bench.client.calls[3] == bench.client.calls[1]
    assert all(response.closed == (index == 1) for index, response in enumerate(bench.client.responses))


@pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.NO_ANSWER, LOADING])
async def test_another_replica_takes_over(table, failure):
    bench = Bench(table(2), {4000: [failure], 4001: [OK]})
    answer = await bench.open()
    assert answer.target.replica_id == "m1-1"
    assert bench.client.calls == [4000, 4001]
    assert bench.hints.suspected == ([] if failure is LOADING else ["m1-0"])


@pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.NO_ANSWER, LOADING])
async def test_the_same_replica_is_tried_again_when_it_is_back(table, failure):
    bench = Bench(table(1), {4000: [failure, OK]})
    assert (await bench.open()).target.replica_id == "m1-0"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Failure.TIMEOUT, 504, "engine_timeout"),
        (Failure.BROKEN, 502, "engine_connection_lost"),
        ((500, b"{}"), 500, None),
        ((400, b'{"error":{"message":"no"}}'), 400, None),
        ((302, b""), 502, "engine_answer_invalid"),
    ],
)
async def test_what_reached_the_engine_and_failed_is_not_repeated(table, failure, status, code):
    bench = Bench(table(2), {4000: [failure], 4001: [OK]})
    error = await bench.refused()
    assert (error.status, error.openai_code) == (status, code)
    assert bench.client.calls == [4000]
    assert all(response.closed for response in bench.client.responses)


async def test_attempts_that_reached_the_engine_are_bounded(table):
    bench = Bench(table(1), {4000: [Failure.NO_ANSWER]}, wait_s=5)
    error = await bench.refused()
    assert (error.status, len(bench.client.calls)) == (502, 3)


async def test_a_replica_that_refuses_trips_its_breaker_and_gives_503_in_time(table):
    bench = Bench(table(1), {4000: [Failure.CONNECT]}, wait_s=0.25)
    began = time.monotonic()
    error = await bench.refused()
    assert 0.2 < time.monotonic() - began < 1
    assert (error.status, error.openai_code, error.retry_after_s) == (503, "model_unreachable", 2)
    assert len(bench.client.calls) == 3


async def test_an_engine_that_keeps_loading_gives_its_own_503(table):
    error = await Bench(table(1), {4000: [LOADING]}).refused()
    assert (error.status, error.openai_code, error.origin) == (503, "model_loading", "engine")


async def test_a_waiting_request_goes_on_when_a_replica_appears(table):
    bench = Bench(table(0), {4000: [OK]}, wait_s=5)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    bench.projection.swap(table(1))
    assert (await waiting).target.replica_id == "m1-0"


async def test_waiters_are_bounded(table):
    bench = Bench(table(0), {}, wait_s=5, max_waiters=1)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    began = time.monotonic()
    error = await bench.refused()
    assert time.monotonic() - began < 1
    assert error.openai_code == "model_starting"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_stopped_model_is_refused_and_an_on_demand_one_is_demanded(table):
    stopped = Bench(table(0, desired_state="stopped"), {}, wait_s=5)
    assert (await stopped.refused()).openai_code == "model_stopped"
    demanded = Bench(table(0, desired_state="stopped", lifecycle="on_demand"), {}, wait_s=0.01)
    assert (await demanded.refused()).openai_code == "model_stopped"
    assert demanded.hints.demanded


async def test_a_model_deleted_while_waiting_is_not_found(table):
    bench = Bench(table(0), {}, wait_s=5)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    bench.projection.swap(RoutingTable())
    with pytest.raises(ApiError) as gone:
        await waiting
    assert gone.value.openai_code == "model_not_found"
