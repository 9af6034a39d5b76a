"""The reading side of a live log against a scripted orchestrator on a real NATS."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.operations import LogsChunkV1, LogsFollowRequestV1, LogsFollowStartedV1
from cortex_contracts.rpc import RpcError, RpcReply
from cortex_contracts.subjects import rpc_logs_follow
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_kit.log_follow import FollowTiming, follow_logs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NODE = NodeId("n1")
MODEL = ModelId(uuid7())


class Orchestrator:
    """Answers as told; keeps what it was asked."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.asked: list[LogsFollowRequestV1] = []
        self.error: RpcError | None = None

    async def listen(self) -> None:
        await self.bus.nc.subscribe(rpc_logs_follow(NODE), cb=self._answer)
        await self.bus.nc.flush()

    async def _answer(self, message: Any) -> None:
        self.asked.append(LogsFollowRequestV1.model_validate_json(message.data))
        result = None if self.error else LogsFollowStartedV1(replica_id=ReplicaId(f"{MODEL}-0"))
        reply = RpcReply[LogsFollowStartedV1](result=result, error=self.error)
        if message.reply:
            await self.bus.nc.publish(message.reply, reply.model_dump_json().encode())

    async def send(self, sequence: int, *lines: str, ended: str | None = None) -> None:
        chunk = LogsChunkV1(sequence=sequence, lines=lines, ended=ended)
        await self.bus.nc.publish(self.asked[0].deliver, chunk.model_dump_json().encode())

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < times:
                await asyncio.sleep(0.02)


@pytest.fixture
async def orchestrator(bus: Bus) -> Orchestrator:
    made = Orchestrator(bus)
    await made.listen()
    return made


async def test_chunks_arrive_in_order_until_the_last(bus: Bus, orchestrator: Orchestrator) -> None:
    stream = follow_logs(bus, NODE, MODEL, tail=7)
    first = asyncio.ensure_future(anext(stream))
    await orchestrator.until_asked(1)
    await orchestrator.send(0, "a", "b")
    await orchestrator.send(1, "c", ended="the engine is gone")
    chunks = [await first, *[chunk async for chunk in stream]]
    assert [chunk.lines for chunk in chunks] == [("a", "b"), ("c",)]
    assert chunks[-1].ended == "the engine is gone"
    assert (orchestrator.asked[0].tail, orchestrator.asked[0].stop) == (7, False)


async def test_a_reader_that_leaves_stops_the_copy_and_its_inbox(bus: Bus, orchestrator: Orchestrator) -> None:
    subscriptions = len(bus.nc._subs)
    async with aclosing(follow_logs(bus, NODE, MODEL)) as stream:
        first = asyncio.ensure_future(anext(stream))
        await orchestrator.until_asked(1)
        await orchestrator.send(0, "a")
        await first
    await orchestrator.until_asked(2)
    assert orchestrator.asked[-1].stop
    assert len(bus.nc._subs) <= subscriptions + 1  # the shared inbox of requests stays


async def test_a_copy_is_renewed_without_history_while_it_is_read(bus: Bus, orchestrator: Orchestrator) -> None:
    async with aclosing(follow_logs(bus, NODE, MODEL, tail=50, timing=FollowTiming(0.1, 20))) as stream:
        first = asyncio.ensure_future(anext(stream))
        await orchestrator.until_asked(3)
        await orchestrator.send(0)
        await first
    assert len({request.deliver for request in orchestrator.asked}) == 1
    assert [request.tail for request in orchestrator.asked[:3]] == [50, 0, 0]


async def test_another_orchestrator_takes_over_with_a_gap_in_the_sequence(bus: Bus, orchestrator: Orchestrator) -> None:
    async with aclosing(follow_logs(bus, NODE, MODEL)) as stream:
        first = asyncio.ensure_future(anext(stream))
        await orchestrator.until_asked(1)
        for sequence in (0, 1, 0, 1):
            await orchestrator.send(sequence, "line")
        sequences = [(await first).sequence, *[(await anext(stream)).sequence for _ in range(3)]]
    assert sequences == [0, 1, 3, 4]


async def test_silence_ends_the_stream_and_says_so(bus: Bus, orchestrator: Orchestrator) -> None:
    chunks = [chunk async for chunk in follow_logs(bus, NODE, MODEL, timing=FollowTiming(0.1, 0.5))]
    assert len(chunks) == 1
    assert "n1 has said nothing" in (chunks[0].ended or "")
    assert len(orchestrator.asked) >= 1


async def test_a_refusal_is_raised_with_its_code(bus: Bus, orchestrator: Orchestrator) -> None:
    orchestrator.error = RpcError(code="replica_not_found", message="none")
    with pytest.raises(DomainError) as caught:
        await anext(follow_logs(bus, NODE, MODEL))
    assert caught.value.code == "replica_not_found"


async def test_a_replica_that_has_gone_ends_the_stream_at_the_next_renewal(
    bus: Bus, orchestrator: Orchestrator
) -> None:
    stream = follow_logs(bus, NODE, MODEL, timing=FollowTiming(0.1, 20))
    first = asyncio.ensure_future(anext(stream))
    await orchestrator.until_asked(1)
    orchestrator.error = RpcError(code="replica_not_found", message="this node has no such engine")
    assert (await first).ended == "this node has no such engine"
    await stream.aclose()


async def test_a_node_without_an_orchestrator_is_told_at_once(bus: Bus) -> None:
    with pytest.raises(TransientError):
        await anext(follow_logs(bus, NodeId("nobody"), MODEL))


async def test_a_slow_reader_costs_bounded_memory_and_still_learns_the_end(
    bus: Bus, orchestrator: Orchestrator
) -> None:
    async with aclosing(follow_logs(bus, NODE, MODEL)) as stream:
        first = asyncio.ensure_future(anext(stream))
        await orchestrator.until_asked(1)
        await orchestrator.send(0, "a")
        await first
        for sequence in range(1, 300):
            await orchestrator.send(sequence, json.dumps(sequence))
        await orchestrator.send(300, ended="over")
        await bus.nc.flush()
        await asyncio.sleep(0.3)
        rest = [chunk async for chunk in stream]
    assert 2 <= len(rest) <= 64
    assert rest[-1].ended == "over"
