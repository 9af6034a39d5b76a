"""The limiter on counters in memory and a clock that the test moves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway.domain.auth import ApiKey, build_key_ring
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.limits import Need
from cortex_gateway.limiter import Limiter, LimiterRules
from cortex_gateway.permits import Permit
from cortex_gateway.ports import Reading
from cortex_gateway.shares import IDLE_S
from cortex_kit.errors import TransientError

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BODY_BYTES = 40


@dataclass
class MovedClock:
    seconds: float = 1000.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds - 1000.0)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class MemoryCounters:
    """`ports.Counters`, with the history that the real ones keep."""

    clock: MovedClock
    history: dict[str, list[tuple[datetime, int, int]]] = field(default_factory=dict)
    operations: set[str] = field(default_factory=set)
    away: bool = False
    incarnation_: str = "first"
    calls: int = 0

    async def _answer(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.away:
            raise TransientError("away")

    async def add(self, subject: str, amount: int, operation: str | None = None) -> int:
        await self._answer()
        past = self.history.setdefault(subject, [])
        value = past[-1][2] if past else 0
        if operation is not None and operation in self.operations:
            return value
        if operation is not None:
            self.operations.add(operation)
        past.append((self.clock.now(), amount, value + amount))
        return value + amount

    async def last(self, subject: str) -> int | None:
        await self._answer()
        past = self.history.get(subject)
        return past[-1][2] if past else None

    async def read(self, subject: str, since: datetime) -> Reading | None:
        await self._answer()
        past = self.history.get(subject)
        if not past:
            return None
        for at, amount, value in past:
            if at >= since:
                return Reading(min(value, value - amount), past[-1][2], at)
        return Reading(past[-1][2], past[-1][2], since)

    async def incarnation(self) -> str:
        await self._answer()
        return self.incarnation_

    def wipe(self) -> None:
        self.history.clear()
        self.operations.clear()
        self.incarnation_ += "+"


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def counters(clock: MovedClock) -> MemoryCounters:
    return MemoryCounters(clock)


@pytest.fixture
async def gateways(clock: MovedClock, counters: MemoryCounters) -> AsyncIterator[list[Limiter]]:
    limiters = [Limiter(counters, clock, LimiterRules(), f"g{number}") for number in range(4)]
    tasks = [asyncio.create_task(limiter.run()) for limiter in limiters]
    for limiter in limiters:
        await limiter._count_gateways()
    clock.seconds += 10
    for limiter in limiters:
        await limiter._look()
    assert [limiter._gateways for limiter in limiters] == [4] * 4
    yield limiters
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def new_key(**fields: object) -> ApiKey:
    document = KeyDocumentV1.model_validate(
        {"aggregateversion": 1, "id": "k1", "digest": "00" * 32, "name": "k"} | fields
    )
    return build_key_ring({"k1": document})[bytes(32)]


async def ask(
    limiter: Limiter, key: ApiKey, *, stream: bool = False, body_bytes: int = BODY_BYTES
) -> Permit | ApiError:
    try:
        return await limiter.admit(key, Need(body_bytes), stream=stream)
    except ApiError as error:
        return error


async def ask_all(gateways: list[Limiter], key: ApiKey, each: int, **kinds: bool) -> list[Permit]:
    answers = await asyncio.gather(*(ask(limiter, key, **kinds) for _ in range(each) for limiter in gateways))
    return [answer for answer in answers if isinstance(answer, Permit)]


async def upkeep(gateways: list[Limiter]) -> None:
    for limiter in gateways:
        await limiter._look()
        limiter._tidy(limiter._clock.monotonic())
        await limiter._queue.join()


async def test_four_gateways_grant_exactly_the_limit_and_again_after_a_minute(gateways, clock):
    key = new_key(requests_per_minute=100)
    assert len(await ask_all(gateways, key, 60)) == 100
    for _ in range(118):
        clock.seconds += 0.5
        assert await ask_all(gateways, key, 2) == []
    clock.seconds += 1.5
    assert len(await ask_all(gateways, key, 60)) == 100


async def test_the_window_slides(gateways, clock):
    key = new_key(requests_per_minute=100)
    assert len(await ask_all(gateways, key, 10)) == 40
    await upkeep(gateways)
    clock.seconds += 30
    assert len(await ask_all(gateways, key, 30)) == 60
    clock.seconds += 31
    assert len(await ask_all(gateways, key, 30)) == 40


async def test_a_refusal_takes_nothing_and_says_when_the_window_moves(gateways, clock):
    key = new_key(requests_per_minute=3, tokens_per_minute=10_000)
    permits = await ask_all(gateways[:1], key, 3)
    clock.seconds += 20
    refused = await ask(gateways[1], key)
    assert isinstance(refused, ApiError)
    assert refused.openai_code == "rate_limit_exceeded"
    assert refused.retry_after_s == 40
    headers = dict(refused.headers())
    assert headers[b"x-ratelimit-limit-requests"] == b"3"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-limit-tokens"] == b"10000"
    assert dict(permits[0].headers())[b"x-ratelimit-remaining-tokens"] == str(10_000 - 3 * 266).encode()


async def test_tokens_are_reserved_and_then_what_was_used_counts(gateways, counters, clock):
    key = new_key(tokens_per_minute=1000)
    permits = await ask_all(gateways, key, 2)
    assert len(permits) == 3
    for permit in permits:
        permit.settle(16)
        permit.settle(500)
    clock.seconds += 1.1
    await upkeep(gateways)
    clock.seconds += 1.1
    await upkeep(gateways)
    assert counters.history["rl.k1.tokens"][-1][2] == 48
    permits = await ask_all(gateways, key, 2)
    assert len(permits) == 3
    permits[0].settle(5000)
    await upkeep(gateways)
    assert counters.history["rl.k1.tokens"][-1][2] > 5000
    clock.seconds += 0.6
    assert await ask_all(gateways, key, 2) == []


async def test_a_reservation_that_left_the_window_is_not_given_back(gateways, counters, clock):
    key = new_key(tokens_per_minute=1000)
    [permit] = await ask_all(gateways[:1], key, 1)
    clock.seconds += 61
    permit.settle(0)
    await upkeep(gateways)
    assert len(await ask_all(gateways, key, 4)) == 3


async def test_a_budget_is_of_the_month_and_refunds_count(gateways, counters, clock):
    key = new_key(tokens_per_month=1000)
    permits = await ask_all(gateways, key, 2)
    assert len(permits) == 3
    refused = await ask(gateways[0], key)
    assert isinstance(refused, ApiError)
    assert refused.openai_code == "insufficient_quota"
    clock.seconds += 3600
    assert await ask_all(gateways, key, 1) == []
    for permit in permits:
        permit.settle(100)
    clock.seconds += 6
    await upkeep(gateways)
    await upkeep(gateways)
    assert counters.history["budget.k1.202603"][-1][2] == 300
    clock.seconds += 6
    assert len(await ask_all(gateways[:1], key, 3)) == 2
    clock.seconds += 32 * 86400
    await upkeep(gateways)
    assert len(await ask_all(gateways, key, 2)) >= 3
    assert "budget.k1.202604" in counters.history


async def test_streams_are_counted_across_gateways_and_released(gateways, clock):
    key = new_key(max_concurrent_streams=3)
    permits = await ask_all(gateways, key, 2, stream=True)
    assert len(permits) == 3
    assert isinstance(await ask(gateways[0], key, stream=False), Permit)
    permits[0].release()
    permits[0].release()
    await upkeep(gateways)
    clock.seconds += 0.1
    assert len(await ask_all(gateways, key, 2, stream=True)) == 1


async def test_streams_of_a_gateway_that_died_are_forgotten_and_those_of_others_are_not(gateways, clock):
    key = new_key(max_concurrent_streams=4)
    assert len(await ask_all(gateways[:2], key, 2, stream=True)) == 4
    for _ in range(25):
        clock.seconds += 1
        await upkeep(gateways[1:])
    assert len(await ask_all(gateways[2:], key, 4, stream=True)) == 2


async def test_streams_of_a_generous_limit_seldom_wait_for_the_counters(gateways, counters, clock):
    key = new_key(max_concurrent_streams=1000)
    waits = []
    for _ in range(50):
        before = counters.calls
        permits = await ask_all(gateways[:1], key, 20, stream=True)
        assert len(permits) == 20
        clock.seconds += 0.1
        for permit in permits:
            permit.release()
        await gateways[0]._queue.join()
        waits.append(counters.calls - before)
    assert sum(waits[5:]) < 10
    clock.seconds += 2
    await upkeep(gateways)
    assert counters.history[max(counters.history, key=lambda name: (".streams." in name, name))][-1][2] == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans(), st.floats(0, 2)), max_size=25),
    st.integers(1, 60),
)
@settings(max_examples=20, deadline=None)
async def test_no_more_streams_than_the_limit_whatever_happens(steps, size):
    clock = MovedClock()
    counters = MemoryCounters(clock)
    limiters = [Limiter(counters, clock, LimiterRules(), f"g{number}") for number in range(4)]
    tasks = [asyncio.create_task(limiter.run()) for limiter in limiters]
    key = new_key(max_concurrent_streams=size)
    open_: list[Permit] = []
    for who, count, ends, pause in steps:
        if ends:
            for permit in open_[:count]:
                permit.release()
            del open_[:count]
        else:
            open_ += await ask_all([limiters[who]], key, count, stream=True)
        assert len(open_) <= size
        clock.seconds += pause
        await upkeep(limiters)
    while open_:
        open_.pop().release()
    clock.seconds += 2
    await upkeep(limiters)
    assert len(await ask_all(limiters[:1], key, size, stream=True)) == size
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.floats(0, 25)), max_size=25), st.integers(1, 200))
@settings(max_examples=20, deadline=None)
async def test_no_minute_sees_more_requests_than_the_limit_and_an_idle_one_gives_all_back(steps, size):
    clock = MovedClock()
    counters = MemoryCounters(clock)
    limiters = [Limiter(counters, clock, LimiterRules(), f"g{number}") for number in range(4)]
    tasks = [asyncio.create_task(limiter.run()) for limiter in limiters]
    key = new_key(requests_per_minute=size)
    admitted: list[float] = []
    for who, count, pause in steps:
        admitted += [clock.seconds] * len(await ask_all([limiters[who]], key, count))
        # What was taken ahead may be used a moment later than it was counted.
        assert sum(at > clock.seconds - 60 + IDLE_S for at in admitted) <= size
        clock.seconds += pause
        await upkeep(limiters)
    clock.seconds += 62
    await upkeep(limiters)
    assert len(await ask_all(limiters, key, 60)) == min(size, 240)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_while_the_counters_are_away_each_gateway_grants_its_part(gateways, counters, clock):
    key = new_key(requests_per_minute=100, tokens_per_minute=100_000, tokens_per_month=10**8, max_concurrent_streams=8)
    counters.away = True
    permits = await ask_all(gateways, key, 40, stream=True)
    assert len(permits) == 8
    for permit in permits:
        permit.release()
    assert len(await ask_all(gateways, key, 40)) == 100 - 8
    clock.seconds += 30
    assert await ask_all(gateways, key, 5) == []
    clock.seconds += 31
    assert len(await ask_all(gateways, key, 40)) == 100
    calls = counters.calls
    await ask_all(gateways, key, 5)
    assert counters.calls == calls
    counters.away = False
    await upkeep(gateways)
    assert counters.history["rl.k1.requests"][-1][2] >= 100
    clock.seconds += 0.6
    assert await ask_all(gateways, key, 5) == []


async def test_counters_that_were_lost_are_told_what_was_used(gateways, counters, clock):
    key = new_key(requests_per_minute=100)
    assert len(await ask_all(gateways, key, 20)) == 80
    counters.wipe()
    for limiter in gateways:
        await limiter.on_reconnect()
    await upkeep(gateways)
    assert counters.history["rl.k1.requests"][-1][2] >= 80
    # Nobody refuses everything meanwhile, and nobody grants the whole limit once more.
    assert len(await ask_all(gateways, key, 20)) <= 20
    clock.seconds += 11
    await upkeep(gateways)
    assert len(await ask_all(gateways, key, 20)) <= 20
    clock.seconds += 61
    assert len(await ask_all(gateways, key, 60)) == 100


async def test_an_addition_whose_answer_was_lost_counts_once(gateways, counters, clock, monkeypatch):
    key = new_key(tokens_per_month=1000)
    [permit] = await ask_all(gateways[:1], key, 1)
    add = counters.add

    async def lost(subject: str, amount: int, operation: str | None = None) -> int:
        await add(subject, amount, operation)
        raise TransientError("no answer")

    monkeypatch.setattr(counters, "add", lost)
    permit.settle(66)
    clock.seconds += 2
    gateways[0]._tidy(clock.seconds)
    await gateways[0]._queue.join()
    monkeypatch.setattr(counters, "add", add)
    await upkeep(gateways[:1])
    await upkeep(gateways[:1])
    assert counters.history["budget.k1.202603"][-1][2] == 66


async def test_a_changed_key_counts_at_once(gateways, clock):
    key = new_key(requests_per_minute=100)
    assert len(await ask_all(gateways, key, 5)) == 20
    lowered = new_key(requests_per_minute=21, aggregateversion=2)
    assert len(await ask_all(gateways, lowered, 5)) == 1
    raised = new_key(requests_per_minute=40, aggregateversion=3)
    assert len(await ask_all(gateways, raised, 10)) == 19
    assert len(await ask_all(gateways, new_key(), 30)) == 120


async def test_what_is_not_used_goes_back_at_the_end_and_when_idle(gateways, counters, clock):
    key = new_key(requests_per_minute=10_000)
    for _ in range(20):
        await ask_all(gateways, key, 20)
        clock.seconds += 0.2
    assert any(limiter._states["k1"].requests.held for limiter in gateways)
    clock.seconds += 2
    await upkeep(gateways[:2])
    for limiter in gateways[2:]:
        await limiter.drained()
    assert counters.history["rl.k1.requests"][-1][2] == 1600


async def test_most_requests_do_not_wait_for_the_counters(gateways, counters, clock):
    key = new_key(requests_per_minute=60_000)
    for _ in range(50):
        await ask_all(gateways[:1], key, 10)
        clock.seconds += 0.1
    before = counters.calls
    for _ in range(50):
        await ask_all(gateways[:1], key, 10)
        await gateways[0]._queue.join()
        clock.seconds += 0.1
    assert counters.calls - before < 250


async def test_a_request_that_gives_up_while_it_waits_takes_nothing(gateways, counters, clock):
    key = new_key(requests_per_minute=2)
    waiting = asyncio.create_task(ask(gateways[0], key))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0.01)
    clock.seconds += 2
    await upkeep(gateways)
    await upkeep(gateways)
    assert len(await ask_all(gateways, key, 2)) == 2


async def test_a_key_that_is_not_used_is_forgotten(gateways, clock):
    await ask_all(gateways, new_key(requests_per_minute=2, max_concurrent_streams=2), 1)
    clock.seconds += 200
    await upkeep(gateways)
    await upkeep(gateways)
    assert all(not limiter._states for limiter in gateways)


async def test_answers_that_cost_more_than_was_reserved_refuse_nobody_while_plenty_is_left(clock, counters):
    """Found by three gateways under load: what was settled while a share was on its way had made it too small."""
    limiter = Limiter(counters, clock, LimiterRules(), "g")
    running = asyncio.create_task(limiter.run())
    key = new_key(tokens_per_minute=1_000_000_000)
    earlier = [await ask(limiter, key) for _ in range(3)]
    answer = counters.add

    async def add(subject: str, amount: int, operation: str | None = None) -> int:
        value = await answer(subject, amount, operation)
        if earlier:
            earlier.pop().settle(100_000)
        return value

    counters.add = add
    assert isinstance(await ask(limiter, key, body_bytes=4_000_000), Permit)
    assert isinstance(await ask(limiter, key), Permit)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
