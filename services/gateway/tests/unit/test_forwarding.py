"""Choice, retries and waiting, with a fake engine client and a fake projection."""

import asyncio
import random
from collections.abc import Callable

import pytest

from cortex_contracts.base import ModelId, ReplicaId
from cortex_gateway.admission import GatePolicy
from cortex_gateway.domain.balancing import BreakerPolicy
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.hedging import Beginnings, HedgePolicy
from cortex_gateway.domain.routing import Endpoint, Keys, Route, RoutingTable, Target, build_table
from cortex_gateway.fleet import FleetPolicy
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
    """Answers per port, in order; the last answer repeats. A number answers late; a word is a refused connection."""

    def __init__(self, script: dict[int, list[tuple[int, bytes] | Failure | str | float]]) -> None:
        self.script = script
        self.calls: list[int] = []
        self.cancelled: list[int] = []
        self.responses: list[FakeResponse] = []

    async def post(self, endpoint: Endpoint, request: UpstreamRequest) -> FakeResponse:
        self.calls.append(endpoint.port)
        answers = self.script[endpoint.port]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, float):
            try:
                await asyncio.sleep(answer)
            except asyncio.CancelledError:
                self.cancelled.append(endpoint.port)
                raise
            answer = OK
        if answer == "refused":
            raise UpstreamError(Failure.CONNECT, "fake", refused=True)
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
    def __init__(self, table: RoutingTable, script, *, wait_s: float = 0.2, max_waiters: int = 10, **bounds) -> None:
        self.projection = FakeProjection(table)
        self.client = FakeClient(script)
        self.hints = FakeHints()
        self.prepared: list[str] = []
        wait = WaitPolicy(wait_s, max_waiters, demand_wait_s=wait_s, max_demand_waiters=max_waiters, ping_s=0.02)
        breaker = BreakerPolicy(failures=3, cooldown_s=0.3, gone_cooldown_s=0.05)
        limits = Limits(max_attempts=3, breaker=breaker, wait=wait, **bounds)
        self.dispatcher = Dispatcher(self.projection, self.client, self.hints, limits)  # type: ignore[arg-type]

    async def open(self, **fields) -> Answer:
        return await self.dispatcher.open(self.call(**fields))

    def call(self, **fields) -> Call:
        def prepare(route: Route, target: Target) -> UpstreamRequest:
            self.prepared.append(route.model.id)
            return UpstreamRequest("/v1/x", b"{}", 7.0, 1.0)

        return Call("served-m1", False, "r", METRICS, prepare, **fields)

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
    began = asyncio.get_running_loop().time()
    error = await bench.refused()
    assert 0.2 < asyncio.get_running_loop().time() - began < 1
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
    began = asyncio.get_running_loop().time()
    error = await bench.refused()
    assert asyncio.get_running_loop().time() - began < 1
    assert error.openai_code == "model_starting"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_stopped_model_is_refused_and_an_on_demand_one_is_demanded(table):
    stopped = Bench(table(0, desired_state="stopped"), {}, wait_s=5)
    assert (await stopped.refused()).openai_code == "model_stopped"
    asleep = Bench(table(0, lifecycle="on_demand"), {}, wait_s=0.01)
    assert (await asleep.refused()).openai_code == "model_starting"
    assert asleep.hints.demanded
    sent_home = Bench(table(0, desired_state="stopped", lifecycle="on_demand"), {}, wait_s=5)
    assert (await sent_home.refused()).openai_code == "model_stopped"
    assert not sent_home.hints.demanded


async def test_a_model_deleted_while_waiting_is_not_found(table):
    bench = Bench(table(0), {}, wait_s=5)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    bench.projection.swap(RoutingTable())
    with pytest.raises(ApiError) as gone:
        await waiting
    assert gone.value.openai_code == "model_not_found"


async def test_a_refused_connection_opens_the_breaker_at_once(table):
    bench = Bench(table(2), {4000: ["refused"], 4001: [OK]})
    for _ in range(6):
        (await bench.open()).close()
    assert bench.client.calls.count(4000) == 1
    await asyncio.sleep(0.06)
    for _ in range(6):
        (await bench.open()).close()
    assert bench.client.calls.count(4000) == 2


async def test_a_replica_that_listens_again_is_used_again(table):
    bench = Bench(table(1), {4000: ["refused", "refused", OK]}, wait_s=2)
    assert (await bench.open()).target.replica_id == "m1-0"


@pytest.fixture
def pair(model, replica, verdict) -> Callable[..., RoutingTable]:
    """Two models, the first with the second as its fallback, with a replica each (of one slot)."""

    def make(*, up=("m1", "m2"), first=None, second=None, **more: object) -> RoutingTable:
        load = {"slots_total": 1}
        models = [model("m1", fallbacks=("served-m2",), **(first or {})), model("m2", **(second or {}))]
        return build_table(
            {one.id: one for one in models},
            {f"{name}-0": replica(name, endpoint=f"http://h:{4000 + int(name[1])}") for name in up},
            {f"{name}-0": verdict(name, load=load) for name in up},
            Keys(lambda replica_id, spec_hash: "k", lambda sealed: None),
        )

    return make


@pytest.mark.parametrize("failure", ["refused", Failure.TIMEOUT, Failure.BROKEN, (500, b"{}"), LOADING])
async def test_a_fallback_answers_when_the_model_fails_before_the_first_byte(pair, failure):
    bench = Bench(pair(), {4001: [failure], 4002: [OK]})
    call = bench.call()
    answer = await bench.dispatcher.open(call)
    assert answer.target.replica_id == "m2-0"
    assert call.route is not None
    assert (call.route.model.id, bench.prepared) == ("m2", ["m1", "m2"])
    answer.close()


async def test_a_fallback_answers_at_once_when_the_model_is_down(pair):
    bench = Bench(pair(up=["m2"]), {4002: [OK]}, wait_s=5)
    began = asyncio.get_running_loop().time()
    assert (await bench.open()).target.replica_id == "m2-0"
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_sleeping_model_is_woken_while_its_fallback_answers(pair):
    bench = Bench(pair(up=["m2"], first={"lifecycle": "on_demand"}), {4002: [OK]})
    assert (await bench.open()).target.replica_id == "m2-0"
    assert bench.hints.demanded == ["m1"]


async def test_what_is_the_clients_own_fault_is_no_reason_to_fall_back(pair):
    bench = Bench(pair(), {4001: [(400, b'{"error":{"message":"no"}}')], 4002: [OK]})
    assert (await bench.refused()).status == 400
    assert bench.client.calls == [4001]


async def test_a_fallback_that_the_key_may_not_use_or_of_another_task_is_left_out(pair):
    bench = Bench(pair(), {4001: [(500, b"{}")], 4002: [OK]})
    with pytest.raises(ApiError) as refused:
        await bench.open(may_use=lambda route: route.model.id != "m2")
    assert refused.value.status == 500
    other_task = Bench(pair(second={"task": "embed"}), {4001: [(500, b"{}")], 4002: [OK]})
    assert (await other_task.refused()).status == 500


async def test_when_nobody_can_the_first_models_error_is_told(pair):
    bench = Bench(pair(), {4001: [(500, b'{"error":{"message":"first"}}')], 4002: [(400, b"{}")]})
    error = await bench.refused()
    assert (error.status, error.message) == (500, "first")


async def test_models_that_fall_back_to_each_other_make_no_loop(pair):
    bench = Bench(pair(up=[], second={"fallbacks": ("served-m1", "served-m2", "unknown")}), {}, wait_s=0.02)
    assert (await bench.refused()).openai_code == "model_starting"


async def test_all_down_it_waits_for_the_model_that_was_asked_for(pair):
    bench = Bench(pair(up=[]), {4001: [OK]}, wait_s=5)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    bench.projection.swap(pair(up=["m1"]))
    assert (await waiting).target.replica_id == "m1-0"


async def test_an_overflow_goes_to_the_fallback(pair):
    bench = Bench(pair(), {4001: [OK], 4002: [OK]}, gate=GatePolicy(max_queue=0))
    first, second = await bench.open(), await bench.open()
    assert (first.target.replica_id, second.target.replica_id) == ("m1-0", "m2-0")
    assert (await bench.refused()).status == 429
    first.close()
    assert (await bench.open()).target.replica_id == "m1-0"


async def test_a_request_waits_for_a_slot_and_gets_it_when_an_answer_ends(pair):
    table = pair(second={"fallbacks": ()})
    bench = Bench(table, {4001: [OK], 4002: [OK]})
    first = await bench.open(may_use=lambda route: False)
    waiting = asyncio.create_task(bench.open(may_use=lambda route: False))
    await asyncio.sleep(0.01)
    assert (waiting.done(), len(bench.client.calls)) == (False, 1)
    first.close()
    assert (await waiting).target.replica_id == "m1-0"


async def test_failures_give_their_slot_back(pair):
    bench = Bench(pair(), {4001: [(400, b"{}")], 4002: [OK]}, gate=GatePolicy(max_queue=0))
    for _ in range(5):
        assert (await bench.refused()).status == 400


async def test_who_is_cancelled_at_the_engine_gives_its_slot_back(pair):
    bench = Bench(pair(), {4001: [5.0, OK], 4002: [OK]}, gate=GatePolicy(max_queue=0))
    slow = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert (await bench.open()).target.replica_id == "m1-0"


async def test_a_sleeping_model_is_waited_for_with_pings_and_served_when_it_wakes(table):
    bench = Bench(table(0, lifecycle="on_demand"), {4000: [OK]}, wait_s=5)
    pings: list[int] = []

    async def ping() -> None:
        pings.append(1)

    waiting = asyncio.create_task(bench.open(ping=ping))
    await asyncio.sleep(0.15)
    assert bench.hints.demanded
    assert 2 <= len(pings) <= 8
    bench.projection.swap(table(1, lifecycle="on_demand"))
    assert (await waiting).target.replica_id == "m1-0"


async def test_a_sleeping_model_that_cannot_start_fails_with_its_own_reason(model, replica, table):
    bench = Bench(table(0, lifecycle="on_demand"), {}, wait_s=30)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    failed = replica(state="failed", reason="no GPU has 40 GiB free", endpoint=None)
    keys = Keys(lambda replica_id, spec_hash: "k", lambda sealed: None)
    bench.projection.swap(build_table({"m1": model(lifecycle="on_demand")}, {"m1-0": failed}, {}, keys))
    with pytest.raises(ApiError) as error:
        await waiting
    assert (error.value.status, error.value.openai_code) == (503, "model_failed")
    assert "no GPU has 40 GiB free" in error.value.message


async def test_those_who_wait_for_sleeping_models_are_bounded(table):
    bench = Bench(table(0, lifecycle="on_demand"), {}, wait_s=30, max_waiters=1)
    waiting = asyncio.create_task(bench.open())
    await asyncio.sleep(0.01)
    assert (await bench.refused()).status == 503
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


FIXED = HedgePolicy("fixed", after_s=0.02)


async def test_without_hedging_a_slow_replica_is_waited_for(table):
    bench = Bench(table(2), {4000: [0.1], 4001: [OK]})
    assert (await bench.open()).target.replica_id == "m1-0"
    assert bench.client.calls == [4000]


async def test_a_hedged_request_is_answered_by_the_faster_replica_and_the_slower_is_cancelled(table):
    bench = Bench(table(2), {4000: [5.0], 4001: [OK]}, hedge=FIXED)
    call = bench.call()
    answer = await bench.dispatcher.open(call)
    assert (answer.target.replica_id, call.target) == ("m1-1", answer.target)
    assert (bench.client.calls, bench.client.cancelled) == ([4000, 4001], [4000])
    assert [response.closed for response in bench.client.responses] == [False]
    answer.close()


async def test_a_hedge_that_fails_leaves_the_first_attempt_alone(table):
    bench = Bench(table(2), {4000: [0.1], 4001: [(500, b"{}")]}, hedge=FIXED)
    assert (await bench.open()).target.replica_id == "m1-0"


async def test_when_both_fail_the_first_attempts_error_is_told(table):
    bench = Bench(table(2), {4000: [Failure.BROKEN], 4001: [OK]}, hedge=FIXED)
    assert (await bench.refused()).status == 502


async def test_a_fast_answer_is_never_hedged(table):
    bench = Bench(table(2), {4000: [OK], 4001: [OK]}, hedge=FIXED)
    for _ in range(10):
        (await bench.open()).close()
    assert len(bench.client.calls) == 10


async def test_after_many_answers_the_measured_delay_counts(table):
    beginnings = Beginnings()
    policy = HedgePolicy("p95", after_s=0.01)
    assert beginnings.delay_s(policy) is None
    for number in range(100):
        beginnings.note(number / 100)
    assert beginnings.delay_s(policy) == pytest.approx(0.95)
    assert beginnings.delay_s(HedgePolicy()) is None


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_in_flight_when_everything_has_ended(table, seed):
    """Whatever mixture of answers, failures, hedges and cancels: every place and every count is given back."""
    rng = random.Random(seed)
    answers = [OK, 0.003, Failure.NO_ANSWER, (500, b"{}"), LOADING, 0.03, "refused", Failure.TIMEOUT]
    script = {4000 + n: [rng.choice(answers) for _ in range(300)] + [OK] for n in range(3)}
    gate = GatePolicy(max_queue=40, wait_s=0.02)
    fleet_policy = FleetPolicy(default_slots=5)
    hedge = HedgePolicy("fixed", 0.005)
    bench = Bench(table(3), script, hedge=hedge, wait_s=1, gate=gate, fleet=fleet_policy)

    async def client(number: int) -> None:
        await asyncio.sleep(rng.random() * 0.1)
        answer = await bench.open(key_id=str(number % 4), batch=number % 3 == 0)
        try:
            await asyncio.sleep(rng.random() * 0.01)
        finally:
            answer.close()

    tasks = [asyncio.create_task(client(number)) for number in range(150)]
    for task in rng.sample(tasks, 40):
        await asyncio.sleep(rng.random() * 0.005)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, ApiError | asyncio.CancelledError) for result in results), results
    assert any(result is None for result in results)
    [fleet] = bench.dispatcher._fleets._fleets.values()
    assert (fleet.loads, fleet.gate.active, fleet.gate.waiting) == ((0, 0, 0), 0, 0)


async def test_a_model_that_wakes_already_is_not_demanded_again(model, replica, table):
    keys = Keys(lambda replica_id, spec_hash: "k", lambda sealed: None)
    starting = build_table({"m1": model(lifecycle="on_demand")}, {"m1-0": replica(state="starting")}, {}, keys)
    bench = Bench(starting, {}, wait_s=0.05)
    assert (await bench.refused()).openai_code == "model_starting"
    assert bench.hints.demanded == []
