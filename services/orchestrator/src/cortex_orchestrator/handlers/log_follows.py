"""Live copies of engines' output. Each reader costs bounded memory, and nothing here waits for a reader."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from cortex_contracts.base import ReplicaId, replica_id
from cortex_contracts.operations import RENEW_S, LogsChunkV1, LogsFollowRequestV1, LogsFollowStartedV1
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.observed import Phase
from cortex_orchestrator.metrics import LOG_FOLLOWS, LOG_LINES_SKIPPED
from cortex_orchestrator.ports import EngineRuntime, LeaseView

log = get_logger()

LINE_CHARACTERS = 4000
CHUNK_BYTES = 128 * 1024
BUFFER_BYTES = 2 * 1024 * 1024
LINE_OVERHEAD = 8
RETRY_S = 0.5
GOODBYE_S = 1.0
INBOX = re.compile(r"_INBOX[A-Za-z0-9_.-]*[A-Za-z0-9_-]")

Publish = Callable[[str, LogsChunkV1], Awaitable[None]]
"""Sends one chunk to a subject; TransientError while that is impossible."""


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """Seconds: the least between two chunks, the most without a sign of life, and how long one request is good for."""

    max_follows: int = 16
    interval_s: float = 0.1
    life_s: float = 5.0
    renew_s: float = RENEW_S


@dataclass(slots=True)
class LineBuffer:
    """The newest lines that wait for a reader; the oldest give way and are counted."""

    limit: int = BUFFER_BYTES
    skipped: int = 0
    lines: deque[str] = field(default_factory=deque[str])
    size: int = 0

    def add(self, lines: Sequence[str]) -> int:
        """Take lines in; returns how many had to go for them."""
        before = self.skipped
        for line in lines:
            short = line[:LINE_CHARACTERS]
            self.lines.append(short)
            self.size += _size(short)
            while self.size > self.limit:
                self.size -= _size(self.lines.popleft())
                self.skipped += 1
        return self.skipped - before

    def take(self) -> tuple[tuple[str, ...], int]:
        """What fits into one message, and how many lines are missing before it."""
        taken: list[str] = []
        size = 0
        while self.lines and (not taken or size + _size(self.lines[0]) <= CHUNK_BYTES):
            taken.append(self.lines.popleft())
            size += _size(taken[-1])
        self.size -= size
        skipped, self.skipped = self.skipped, 0
        return tuple(taken), skipped

    def put_back(self, lines: Sequence[str], skipped: int) -> None:
        """Undo a `take` whose message could not be sent."""
        self.lines.extendleft(reversed(lines))
        self.size += sum(_size(line) for line in lines)
        self.skipped += skipped


def _size(line: str) -> int:
    return len(line.encode(errors="replace")) + LINE_OVERHEAD


@dataclass(slots=True)
class _Follow:
    replica: ReplicaId
    deliver: str
    expires_at: float
    task: "asyncio.Task[None] | None" = None
    buffer: LineBuffer = field(default_factory=LineBuffer)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str | None = None
    sequence: int = 0


class LogFollows:
    """Answers requests for live logs and runs the copies. Only the holder of the node's lease begins one."""

    def __init__(
        self, runtime: EngineRuntime, publish: Publish, lease: LeaseView, settings: FollowSettings | None = None
    ) -> None:
        self._runtime = runtime
        self._publish = publish
        self._lease = lease
        self._settings = settings or FollowSettings()
        self._follows: dict[str, _Follow] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Task: the copies live in it. Cancelled, it tells every reader that the orchestrator goes."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            self._group = None

    async def close(self) -> None:
        """End every copy and say so. For a shutdown, while NATS is still there."""
        group, self._group = self._group, None
        tasks = [self._end(follow, "the orchestrator is shutting down") for follow in tuple(self._follows.values())]
        if tasks and group is not None:
            await asyncio.wait(tasks, timeout=GOODBYE_S)

    async def ask(self, request: LogsFollowRequestV1) -> LogsFollowStartedV1 | None:
        """Begin, renew or stop a copy; None when the answer is not ours to give.

        Raises:
            DomainError: `bad_inbox`, `replica_not_found`, `too_many_followers`.
            TransientError: the runtime is unreachable.
        """
        if not INBOX.fullmatch(request.deliver) or ".." in request.deliver:
            raise DomainError("bad_inbox", "`deliver` must be an inbox of the caller: _INBOX and plain words")
        known = self._follows.get(request.deliver)
        if request.stop or not self._lease.held:
            if known is not None:
                self._drop(known)
            return None
        if known is not None:
            known.expires_at = self._now() + self._settings.renew_s
            return LogsFollowStartedV1(replica_id=known.replica, renewed=True)
        return await self._begin(request)

    async def _begin(self, request: LogsFollowRequestV1) -> LogsFollowStartedV1:
        replica = replica_id(request.model_id, request.ordinal)
        if not any(seen.replica_id == replica for seen in await self._runtime.list_owned()):
            raise DomainError("replica_not_found", f"this node has no engine for replica {replica}", status=404)
        if self._group is None:
            raise TransientError("the orchestrator is starting or shutting down")
        if len(self._follows) >= self._settings.max_follows:
            most = self._settings.max_follows
            raise DomainError("too_many_followers", f"{most} live logs are being read on this node already", status=429)
        follow = _Follow(replica, request.deliver, self._now() + self._settings.renew_s)
        self._follows[follow.deliver] = follow
        follow.task = self._group.create_task(self._copy(follow, request.tail), name=f"follow {replica}")
        LOG_FOLLOWS.set(len(self._follows))
        return LogsFollowStartedV1(replica_id=replica)

    def _drop(self, follow: _Follow) -> None:
        """End a copy without a word: nobody listens, or another orchestrator goes on with it."""
        self._forget(follow)
        if follow.task is not None:
            follow.task.cancel()

    def _end(self, follow: _Follow, reason: str) -> "asyncio.Task[None]":
        assert follow.task is not None
        follow.ended = reason
        follow.news.set()
        return follow.task

    def _forget(self, follow: _Follow) -> None:
        if self._follows.get(follow.deliver) is follow:
            del self._follows[follow.deliver]
            LOG_FOLLOWS.set(len(self._follows))

    async def _copy(self, follow: _Follow, tail: int) -> None:
        reading = asyncio.create_task(self._read(follow, tail))
        try:
            await self._send(follow)
        finally:
            reading.cancel()
            self._forget(follow)
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, follow: _Follow, tail: int) -> None:
        """From the runtime into the buffer, however slow the reader is."""
        try:
            async with aclosing(self._lines(follow.replica, tail)) as batches:
                async for lines in batches:
                    LOG_LINES_SKIPPED.inc(follow.buffer.add(lines))
                    follow.news.set()
            reason = await self._why(follow.replica)
        except TransientError as error:
            reason = str(error)
        except Exception:
            # The boundary of one reader's task: a bug here must not end the service, and must not look like silence.
            log.exception("log_follow_failed", replica_id=follow.replica)
            reason = "the log cannot be read: internal error"
        follow.ended = follow.ended or reason
        follow.news.set()

    def _lines(self, replica: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        return self._runtime.follow(replica, tail)

    async def _send(self, follow: _Follow) -> None:
        """From the buffer to the reader, at most one chunk an interval, at least one a `life_s`."""
        while True:
            await self._wait_for_news(follow)
            ended = follow.ended
            if ended is None and self._now() >= follow.expires_at:
                ended = follow.ended = "the reader has not asked for it any more"
            lines, skipped = follow.buffer.take()
            last = ended is not None and not follow.buffer.lines
            chunk = LogsChunkV1(sequence=follow.sequence, lines=lines, skipped=skipped, ended=ended if last else None)
            if await self._sent(follow, chunk):
                follow.sequence += 1
                if last:
                    return
            elif self._now() >= follow.expires_at:
                return
            await asyncio.sleep(self._settings.interval_s)

    async def _wait_for_news(self, follow: _Follow) -> None:
        if follow.buffer.lines or follow.ended is not None:
            return
        follow.news.clear()
        patience = min(self._settings.life_s, max(0.0, follow.expires_at - self._now()))
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await follow.news.wait()

    async def _sent(self, follow: _Follow, chunk: LogsChunkV1) -> bool:
        """False: NATS is away; the lines are kept, as far as there is room."""
        try:
            await self._publish(follow.deliver, chunk)
        except TransientError:
            follow.buffer.put_back(chunk.lines, chunk.skipped)
            await asyncio.sleep(RETRY_S)
            return False
        return True

    async def _why(self, replica: ReplicaId) -> str:
        seen = next((one for one in await self._runtime.list_owned() if one.replica_id == replica), None)
        if seen is None:
            return "the engine was removed"
        if seen.phase is Phase.EXITED:
            code = seen.exit.code if seen.exit is not None else None
            return "the engine ended" + (f" with exit code {code}" if code is not None else "")
        return "the engine was started anew"

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
