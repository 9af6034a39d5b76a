"""Live logs against the fake runtime: what a reader gets, how copies begin and end, and what they cost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cortex_contracts.operations import LogsChunkV1, LogsFollowRequestV1
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.domain.spec import ContainerSpec
from cortex_orchestrator.handlers.log_follows import CHUNK_BYTES, FollowSettings, LineBuffer, LogFollows

FAST = FollowSettings(max_follows=2, interval_s=0.005, life_s=0.03, renew_s=5.0)


@dataclass
class Lease:
    held: bool = True


@dataclass
class Desk:
    """LogFollows with a runtime, and everything that was sent."""

    runtime: Any
    settings: FollowSettings = FAST
    lease: Lease = field(default_factory=Lease)
    sent: list[tuple[str, LogsChunkV1]] = field(default_factory=list[tuple[str, LogsChunkV1]])
    away: bool = False

    def __post_init__(self) -> None:
        self.follows = LogFollows(self.runtime, self._publish, self.lease, self.settings)

    async def _publish(self, subject: str, chunk: LogsChunkV1) -> None:
        if self.away:
            raise TransientError("away")
        self.sent.append((subject, chunk))

    @property
    def lines(self) -> list[str]:
        return [line for _, chunk in self.sent for line in chunk.lines]

    @property
    def ended(self) -> str | None:
        return self.sent[-1][1].ended if self.sent else None

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not check():
                await asyncio.sleep(0.005)


@pytest.fixture
async def desk(fake_runtime: Any) -> AsyncIterator[Desk]:
    made = Desk(fake_runtime)
    running = asyncio.create_task(made.follows.run())
    await asyncio.sleep(0)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def spec(fake_runtime: Any, make_spec: Callable[..., ContainerSpec]) -> ContainerSpec:
    made = make_spec()
    await fake_runtime.create(made, {})
    await fake_runtime.start(made.replica_id)
    return made


def request(spec: ContainerSpec, inbox: str = "_INBOX.a.1", **changes: Any) -> LogsFollowRequestV1:
    return LogsFollowRequestV1(model_id=spec.model_id, ordinal=spec.ordinal, deliver=inbox, **changes)


async def test_history_comes_first_then_what_is_written_in_unbroken_sequence(desk: Desk, spec: ContainerSpec) -> None:
    started = await desk.follows.ask(request(spec, tail=1))
    assert started is not None
    assert not started.renewed
    await desk.until(lambda: desk.lines)
    await desk.runtime.written.put(("new line",))
    await desk.until(lambda: len(desk.lines) > 1)
    assert desk.lines == ["mode x", "new line"]
    assert [chunk.sequence for _, chunk in desk.sent] == list(range(len(desk.sent)))
    assert {subject for subject, _ in desk.sent} == {"_INBOX.a.1"}


async def test_silence_is_filled_with_signs_of_life(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec, tail=0))
    await desk.until(lambda: len(desk.sent) >= 3)
    assert desk.lines == []


async def test_many_lines_travel_in_few_messages(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec, tail=0))
    await desk.runtime.written.put(tuple(str(number) for number in range(1000)))
    await desk.until(lambda: len(desk.lines) == 1000)
    assert sum(1 for _, chunk in desk.sent if chunk.lines) == 1


async def test_a_crash_ends_the_copy_with_its_exit_code(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec))
    desk.runtime.crash(spec.replica_id, 3)
    await desk.until(lambda: desk.ended)
    assert desk.ended == "the engine ended with exit code 3"


async def test_a_removal_ends_the_copy(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec))
    await desk.runtime.remove(spec.replica_id)
    await desk.until(lambda: desk.ended)
    assert desk.ended == "the engine was removed"


async def test_a_runtime_that_goes_away_ends_the_copy_and_says_so(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec))
    desk.runtime.unreachable = True
    await desk.until(lambda: desk.ended)
    assert desk.ended == "the runtime is away"


async def test_a_copy_that_is_not_asked_for_again_ends(fake_runtime: Any, spec: ContainerSpec) -> None:
    desk = Desk(fake_runtime, FollowSettings(interval_s=0.005, life_s=0.02, renew_s=0.1))
    running = asyncio.create_task(desk.follows.run())
    await asyncio.sleep(0)
    await desk.follows.ask(request(spec))
    await desk.until(lambda: desk.ended)
    assert "has not asked" in (desk.ended or "")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_asking_again_renews_instead_of_copying_twice(desk: Desk, spec: ContainerSpec) -> None:
    await desk.follows.ask(request(spec, tail=2))
    again = await desk.follows.ask(request(spec, tail=2))
    assert again is not None
    assert again.renewed
    await desk.until(lambda: desk.lines)
    await asyncio.sleep(0.05)
    assert desk.lines == ["first line", "mode x"]


async def test_a_reader_that_leaves_frees_its_place_at_once(desk: Desk, spec: ContainerSpec) -> None:
    for inbox in ("_INBOX.a", "_INBOX.b"):
        await desk.follows.ask(request(spec, inbox))
    with pytest.raises(DomainError) as caught:
        await desk.follows.ask(request(spec, "_INBOX.c"))
    assert caught.value.code == "too_many_followers"
    assert await desk.follows.ask(request(spec, "_INBOX.a", stop=True)) is None
    assert await desk.follows.ask(request(spec, "_INBOX.c")) is not None


async def test_only_the_holder_of_the_lease_answers_and_one_that_lost_it_falls_silent(
    desk: Desk, spec: ContainerSpec
) -> None:
    await desk.follows.ask(request(spec))
    await desk.until(lambda: desk.lines)
    desk.lease.held = False
    assert await desk.follows.ask(request(spec)) is None
    count = len(desk.sent)
    await asyncio.sleep(0.1)
    assert len(desk.sent) == count
    assert await desk.follows.ask(request(spec, "_INBOX.b")) is None


async def test_a_replica_that_is_not_here_is_refused(desk: Desk, make_spec: Callable[..., ContainerSpec]) -> None:
    with pytest.raises(DomainError) as caught:
        await desk.follows.ask(request(make_spec()))
    assert caught.value.code == "replica_not_found"


@pytest.mark.parametrize("inbox", ["container.failed", "_INBOX.>", "_INBOX.*.1", "_INBOX..x", "$JS.API.x", "_INBOX. x"])
async def test_nobody_can_have_chunks_sent_to_a_subject_that_is_no_inbox(
    desk: Desk, spec: ContainerSpec, inbox: str
) -> None:
    with pytest.raises(DomainError) as caught:
        await desk.follows.ask(request(spec, inbox))
    assert caught.value.code == "bad_inbox"


async def test_lines_wait_while_nats_is_away(desk: Desk, spec: ContainerSpec) -> None:
    desk.away = True
    await desk.follows.ask(request(spec, tail=2))
    await asyncio.sleep(0.05)
    desk.away = False
    await desk.until(lambda: desk.lines)
    assert desk.lines == ["first line", "mode x"]
    assert desk.sent[0][1].sequence == 0


async def test_a_shutdown_is_told_to_every_reader(desk: Desk, spec: ContainerSpec) -> None:
    for inbox in ("_INBOX.a", "_INBOX.b"):
        await desk.follows.ask(request(spec, inbox))
    await desk.follows.close()
    ended = {subject: chunk.ended for subject, chunk in desk.sent if chunk.ended}
    assert ended == dict.fromkeys(("_INBOX.a", "_INBOX.b"), "the orchestrator is shutting down")
    with pytest.raises(TransientError):
        await desk.follows.ask(request(spec, "_INBOX.c"))


def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    buffer = LineBuffer(limit=1000)
    assert buffer.add([f"{number:02}" for number in range(200)]) == 110
    lines, skipped = buffer.take()
    assert (len(lines), skipped) == (90, 110)
    assert lines[-1] == "199"
    assert buffer.take() == ((), 0)


def test_one_message_never_exceeds_its_bound_and_long_lines_are_cut() -> None:
    buffer = LineBuffer()
    buffer.add(["x" * 100_000] * 100)
    sizes: list[int] = []
    while buffer.lines:
        lines, _ = buffer.take()
        sizes.append(sum(len(line) + 8 for line in lines))
    assert max(sizes) <= CHUNK_BYTES
    assert len(sizes) == 4


def test_a_message_that_could_not_be_sent_is_put_back_in_order() -> None:
    buffer = LineBuffer()
    buffer.add(["a", "b"])
    lines, skipped = buffer.take()
    buffer.add(["c"])
    buffer.put_back(lines, skipped)
    assert buffer.take() == (("a", "b", "c"), 0)
    assert buffer.size == 0
