"""Who is served next, and the gate in front of a model."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_gateway import admission
from cortex_gateway.admission import Gate, GatePolicy, Visitor
from cortex_gateway.domain.admission import MIN_SHARE, ServiceTime, Ticket, WaitLine, room
from cortex_gateway.domain.errors import ApiError

BRIEF = settings(max_examples=40, deadline=None)
HANDICAP = 30.0
ARRIVALS = st.lists(st.tuples(st.integers(0, 100), st.sampled_from("abc"), st.booleans()), max_size=60).map(sorted)


def fill(line: WaitLine, arrivals, pace: float = 0.0) -> dict[Ticket, tuple[int, str, bool]]:
    return {
        line.join(f"{who}-{batch}", moment + (HANDICAP if batch else 0.0), pace): (moment, who, batch)
        for moment, who, batch in arrivals
    }


def drain(line: WaitLine) -> list[Ticket]:
    served: list[Ticket] = []
    while (ticket := line.first()) is not None:
        assert line.leave(ticket)
        served.append(ticket)
    return served


@BRIEF
@given(ARRIVALS)
def test_everybody_is_served_once_interactive_first_and_batch_is_never_starved(arrivals):
    line = WaitLine()
    known = fill(line, arrivals)
    served = [known[ticket] for ticket in drain(line)]
    assert sorted(served) == sorted(known.values())
    for position, (moment, _, batch) in enumerate(served):
        for later_moment, _, later_batch in served[position + 1 :]:
            if batch == later_batch:
                assert moment <= later_moment
            elif batch:
                assert later_moment >= moment + HANDICAP
            else:
                assert later_moment + HANDICAP >= moment


@BRIEF
@given(ARRIVALS, st.data())
def test_who_leaves_is_gone_and_nobody_else(arrivals, data):
    line = WaitLine()
    known = fill(line, arrivals, 0.5)
    gone = [ticket for ticket in known if data.draw(st.booleans())]
    assert all(line.leave(ticket) for ticket in gone)
    assert not any(line.leave(ticket) for ticket in gone)
    assert len(line) == len(known) - len(gone)
    assert set(drain(line)) == set(known) - set(gone)


@BRIEF
@given(st.integers(1, 30), st.integers(1, 30))
def test_keys_take_turns_however_many_requests_each_has_waiting(many, few):
    line = WaitLine()
    for _ in range(many):
        line.join("greedy", 0.0, 1.0)
    for _ in range(few):
        line.join("modest", 0.5, 1.0)
    served = [ticket.who for ticket in drain(line)]
    turns = served[: 2 * min(many, few)]
    assert Counter(turns) == {"greedy": min(many, few), "modest": min(many, few)}
    assert all(one != other for one, other in pairwise(turns))


def test_a_key_that_has_left_the_line_begins_anew():
    line = WaitLine()
    for _ in range(10):
        line.join("a", 0.0, 1.0)
    drain(line)
    assert line.join("a", 0.5, 1.0).rank == 0.5


@BRIEF
@given(st.integers(1, 500), st.integers(0, 1000))
def test_there_is_always_room_for_a_share(capacity, foreign):
    allowed = room(capacity, foreign)
    assert allowed >= max(1, capacity * MIN_SHARE)
    assert allowed <= max(1, capacity)
    assert allowed == capacity or foreign > 0


def test_the_wait_is_estimated_from_what_requests_take():
    service = ServiceTime()
    assert (service.pace(4), service.wait_s(10, 4)) == (0.0, 1)
    for _ in range(200):
        service.note(8.0)
    assert service.pace(16) == pytest.approx(0.5)
    assert service.wait_s(7, 4) == 16
    assert service.wait_s(1000, 1) == 60


class Bench:
    def __init__(self, room_: int = 1, **policy: float) -> None:
        self.gate = Gate("m", GatePolicy(**policy), asyncio.get_running_loop().time)  # type: ignore[arg-type]
        self.gate.set_room(room_)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, who: str, *, batch: bool = False, since: float = 0.0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._enter(who, batch, since))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def _enter(self, who: str, batch: bool, since: float) -> None:
        await self.gate.enter(Visitor(who, batch, since))
        self.order.append(who)

    async def serve(self, count: int) -> None:
        for _ in range(count):
            self.gate.leave(0.0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_as_many_enter_as_there_is_room_and_the_others_in_order():
    bench = Bench(2)
    for who in "abcd":
        await bench.come(who, since=ord(who))
    assert (bench.order, bench.gate.waiting, bench.gate.active) == (["a", "b"], 2, 2)
    await bench.serve(2)
    assert (bench.order, bench.gate.waiting, bench.gate.active) == (["a", "b", "c", "d"], 0, 2)
    await bench.serve(2)
    assert bench.gate.active == 0


async def test_interactive_goes_before_batch_that_came_first():
    bench = Bench(1)
    await bench.come("first")
    await bench.come("batch", batch=True, since=1)
    await bench.come("interactive", since=2)
    await bench.come("late", since=1 + 30.5)
    await bench.serve(3)
    assert bench.order == ["first", "interactive", "batch", "late"]


async def test_who_hangs_up_leaves_the_line_and_takes_no_place():
    bench = Bench(1)
    await bench.come("first")
    gone = await bench.come("gone", since=1)
    await bench.come("second", since=2)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert bench.gate.waiting == 1
    await bench.serve(1)
    assert bench.order == ["first", "second"]


async def test_a_place_given_at_the_moment_of_the_hang_up_is_passed_on():
    bench = Bench(1)
    await bench.come("first")
    gone = await bench.come("gone", since=1)
    await bench.come("second", since=2)
    bench.gate.leave(0.0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await asyncio.sleep(0)
    assert bench.order == ["first", "second"]
    assert bench.gate.active == 1


async def test_a_full_line_refuses_with_an_estimate_of_the_wait():
    bench = Bench(2, max_queue=1)
    for who in "abc":
        await bench.come(who, since=ord(who))
    bench.gate._service.note(6.0)
    with pytest.raises(ApiError) as full:
        await bench.gate.enter(Visitor("d", False, 200.0))
    assert (full.value.status, full.value.openai_code, full.value.retry_after_s) == (429, "model_overloaded", 6)
    await bench.close()


async def test_an_interactive_request_takes_a_batch_requests_place_in_a_full_line():
    bench = Bench(1, max_queue=1)
    await bench.come("first")
    batch = await bench.come("batch", batch=True, since=1)
    await bench.come("interactive", since=2)
    with pytest.raises(ApiError) as displaced:
        await batch
    assert displaced.value.status == 429
    await bench.serve(1)
    assert bench.order == ["first", "interactive"]


async def test_nobody_waits_longer_than_allowed():
    bench = Bench(1, wait_s=0.02)
    await bench.come("first")
    with pytest.raises(ApiError) as late:
        await bench.gate.enter(Visitor("second", False, 1.0))
    assert (late.value.status, bench.gate.waiting, bench.gate.active) == (429, 0, 1)


async def test_more_room_lets_more_in_and_less_room_throws_nobody_out():
    bench = Bench(1)
    for who in "abcd":
        await bench.come(who, since=ord(who))
    bench.gate.set_room(3)
    await asyncio.sleep(0.001)
    assert bench.order == ["a", "b", "c"]
    bench.gate.set_room(1)
    await bench.serve(2)
    assert bench.order == ["a", "b", "c"]
    await bench.serve(1)
    assert bench.order == ["a", "b", "c", "d"]


async def test_reports_of_others_that_grow_old_let_those_who_wait_in(monkeypatch):
    monkeypatch.setattr(admission, "RECHECK_S", 0.01)
    bench = Bench(1)
    looked: list[int] = []

    def recheck() -> None:
        looked.append(bench.gate.waiting)
        bench.gate.set_room(2)

    bench.gate.recheck = recheck
    await bench.come("a")
    second = await bench.come("b", since=1)
    await second
    assert looked == [1]


async def test_when_the_model_goes_those_who_wait_go_on():
    bench = Bench(1)
    await bench.come("a")
    await bench.come("b", since=1)
    bench.gate.close()
    await asyncio.gather(*bench.tasks)
    assert bench.order == ["a", "b"]


async def test_under_random_churn_no_place_is_lost_or_doubled():
    bench = Bench(3, wait_s=5)
    peak = 0

    async def client(number: int) -> None:
        nonlocal peak
        await bench.gate.enter(Visitor(str(number % 5), number % 3 == 0, number))
        try:
            peak = max(peak, bench.gate.active)
            await asyncio.sleep(0.0005 * (number % 4))
        finally:
            bench.gate.leave(0.001)

    tasks = [asyncio.create_task(client(number)) for number in range(300)]
    for number, task in enumerate(tasks):
        if number % 7 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (bench.gate.active, bench.gate.waiting, peak) == (0, 0, 3)
