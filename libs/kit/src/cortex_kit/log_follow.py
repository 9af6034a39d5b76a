"""The reading side of a live engine log: asks the orchestrator for a copy, keeps it going, tells why it ended."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.operations import RENEW_S, LogsChunkV1, LogsFollowRequestV1, LogsFollowStartedV1
from cortex_contracts.subjects import rpc_logs_follow
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError

REQUEST_TIMEOUT_S = 10.0
WAITING_CHUNKS = 64
"""Chunks kept for a reader who is slow; a later one is dropped, which the reader sees as a gap in `sequence`."""


@dataclass(frozen=True, slots=True)
class FollowTiming:
    """Seconds: how often a copy is asked for anew, and how long it may say nothing."""

    renew_s: float = RENEW_S / 3
    silence_s: float = 2 * RENEW_S


async def follow_logs(
    bus: Bus,
    node: NodeId,
    model_id: ModelId,
    ordinal: int = 0,
    tail: int = 200,
    *,
    timing: FollowTiming | None = None,
) -> AsyncGenerator[LogsChunkV1, None]:
    """History first, then live, until `ended` is set; a chunk without lines is a sign of life (every few seconds).

    `sequence` grows by one over the whole of it, also when another orchestrator took over; a gap means lost lines.
    Close the generator (`contextlib.aclosing`) to stop: the orchestrator then ends its copy at once, and by itself
    within RENEW_S when it cannot be told. A reader may be slow: memory is bounded, what it misses is counted or a gap.

    Raises:
        DomainError: at the first step only: no such replica (`replica_not_found`), too many readers
            (`too_many_followers`).
        TransientError: at the first step only: no orchestrator of the node answers, or NATS is away.
    """
    reader = _Reader(bus, node, LogsFollowRequestV1(model_id=model_id, ordinal=ordinal, tail=tail, deliver="-"))
    try:
        await reader.open()
        renewing = asyncio.create_task(reader.renew(timing or FollowTiming()))
        try:
            while True:
                chunk = await reader.next((timing or FollowTiming()).silence_s)
                yield chunk
                if chunk.ended is not None:
                    return
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
    finally:
        await reader.close()


class _Reader:
    def __init__(self, bus: Bus, node: NodeId, request: LogsFollowRequestV1) -> None:
        self._bus = bus
        self._node = node
        self._request = request
        self._chunks: asyncio.Queue[LogsChunkV1] = asyncio.Queue(WAITING_CHUNKS)
        self._unsubscribe: contextlib.AsyncExitStack = contextlib.AsyncExitStack()
        self._offset = 0
        self._next_sequence = 0
        self._ended = False

    async def open(self) -> None:
        inbox = self._bus.nc.new_inbox()
        self._request = self._request.model_copy(update={"deliver": inbox})
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                subscription = await self._bus.nc.subscribe(inbox, cb=self._take)
        except (NatsError, OSError, TimeoutError) as error:
            raise TransientError(f"no inbox for the log: {type(error).__name__}") from error
        self._unsubscribe.push_async_callback(subscription.unsubscribe)
        await self._ask(self._request)

    async def renew(self, timing: FollowTiming) -> None:
        """Task: ask again and again. A new copy, after a take-over, begins with what comes, not with history."""
        again = self._request.model_copy(update={"tail": 0})
        while True:
            await asyncio.sleep(timing.renew_s)
            try:
                await self._ask(again)
            except TransientError:
                continue  # silence is judged by the reader
            except DomainError as error:
                self._offer(LogsChunkV1(sequence=self._next_sequence, ended=error.message))
                return

    async def next(self, silence_s: float) -> LogsChunkV1:
        try:
            async with asyncio.timeout(silence_s):
                chunk = await self._chunks.get()
        except TimeoutError:
            reason = f"the orchestrator of node {self._node} has said nothing for {silence_s:g} s"
            chunk = LogsChunkV1(sequence=self._next_sequence, ended=reason)
        self._ended = chunk.ended is not None
        return chunk

    async def close(self) -> None:
        with contextlib.suppress(NatsError, OSError, TransientError, TimeoutError):
            async with asyncio.timeout(2):
                await self._unsubscribe.aclose()
                if not self._ended and self._request.deliver != "-":
                    stop = self._request.model_copy(update={"stop": True})
                    await self._bus.nc.publish(rpc_logs_follow(self._node), stop.model_dump_json().encode())

    async def _ask(self, request: LogsFollowRequestV1) -> None:
        await self._bus.request(rpc_logs_follow(self._node), request, LogsFollowStartedV1, timeout=REQUEST_TIMEOUT_S)

    async def _take(self, message: Msg) -> None:
        try:
            chunk = LogsChunkV1.model_validate_json(message.data)
        except ValidationError:
            return
        if chunk.sequence + self._offset < self._next_sequence:
            # Another orchestrator began anew: leave a gap, because what came between the two is lost.
            self._offset = self._next_sequence + 1 - chunk.sequence
        renumbered = chunk.model_copy(update={"sequence": chunk.sequence + self._offset})
        self._next_sequence = renumbered.sequence + 1
        self._offer(renumbered)

    def _offer(self, chunk: LogsChunkV1) -> None:
        """Keep it for the reader. The last chunk is never dropped: it takes the place of the oldest."""
        if self._chunks.full():
            if chunk.ended is None:
                return
            self._chunks.get_nowait()
        self._chunks.put_nowait(chunk)
