"""What the gateway needs from the outside, in its own words."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from cortex_contracts.base import ModelId, ReplicaId
from cortex_gateway.domain.routing import Endpoint, Route, Target
from cortex_gateway.wire.answers import AnswerHead
from cortex_gateway.wire.requests import HeadMemo
from cortex_kit.errors import TransientError

Headers = list[tuple[bytes, bytes]]


class Failure(StrEnum):
    """How an engine failed us."""

    CONNECT = "connect"
    """Refused, unreachable, or no connection in time: nothing was sent."""
    NO_ANSWER = "no_answer"
    """The connection closed before the first byte of an answer."""
    TIMEOUT = "timeout"
    """Silent for longer than allowed."""
    BROKEN = "broken"
    """The answer broke off or was not HTTP."""


class UpstreamError(TransientError):
    """An engine could not be reached, or failed while it answered."""

    def __init__(self, failure: Failure, detail: str, *, refused: bool = False) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.refused = refused
        """CONNECT, and the engine's machine said that nobody listens there."""


class UpstreamRequest:
    """One request to an engine, not to be changed once it is sent. `extra_head` holds further header lines, each ended by CRLF."""

    __slots__ = ("body", "extra_head", "first_byte_timeout_s", "idle_timeout_s", "method", "own_head", "path")

    def __init__(  # noqa: PLR0913 - a plain record
        self,
        path: str,
        body: bytes,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        extra_head: bytes = b"",
        method: bytes = b"POST",
        *,
        own_head: bool = False,
    ) -> None:
        self.path = path
        self.body = body
        self.first_byte_timeout_s = first_byte_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.extra_head = extra_head
        self.method = method
        self.own_head = own_head
        """`extra_head` says also what the body is and which answers are welcome; otherwise both are plain JSON."""


class UpstreamResponse(Protocol):
    """An answer that has begun."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers:
        """All of them, names in lower case."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """Value of a header, by lower-case name."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body as they came; b"" at its end.

        Raises:
            UpstreamError: TIMEOUT after `idle_timeout_s` of silence, BROKEN when the answer is cut short.
        """
        ...

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError as `read`, and BROKEN when it is larger than `limit`."""
        ...

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else close it at once. Idempotent."""
        ...


class UpstreamClient(Protocol):
    """HTTP/1.1 to engines, connections kept and reused."""

    async def post(self, endpoint: Endpoint, request: UpstreamRequest) -> UpstreamResponse:
        """Send, and wait for the head of the answer. The caller closes the response in a `finally`.

        Raises:
            UpstreamError: CONNECT, NO_ANSWER, TIMEOUT or BROKEN. A reused connection that the engine had closed
                meanwhile is not an error: the request is repeated once on a fresh one.
        """
        ...


class UpstreamLine(Protocol):
    """A connection to an engine that is used without waiting. See `adapters.upstream_connection`."""

    head: AnswerHead
    head_done: bool
    complete: bool
    error: UpstreamError | None

    def take(self) -> bytes:
        """All body bytes that are there."""
        ...

    def expect(self, on_progress: Callable[[], None]) -> None:
        """Call back when something came or nothing more will, perhaps once too often; fail after a time of silence."""
        ...

    def expect_end(self, on_progress: Callable[[], None], within_s: float) -> None:
        """`expect` for what is left of an answer; fail when it has not ended in that time."""
        ...

    def rest(self) -> None:
        """Call nobody back; no time runs."""
        ...


LineT = TypeVar("LineT", bound=UpstreamLine)


class UpstreamPool(Protocol[LineT]):
    """Connections to engines that are open already."""

    def idle(self, endpoint: Endpoint) -> LineT | None:
        """One that may be used at once; `release` it afterwards."""
        ...

    def begin(self, line: LineT, endpoint: Endpoint, request: UpstreamRequest) -> None:
        """Send a request on an idle connection."""
        ...

    def response(self, endpoint: Endpoint, line: LineT) -> UpstreamResponse:
        """The answer whose head has come."""
        ...

    def release(self, endpoint: Endpoint, line: LineT) -> None:
        """Keep it if its answer was read to the end, else close it."""
        ...


class ClientLine(Protocol):
    """What the direct path needs of a client's connection."""

    write_paused: bool

    def await_drain(self, on_drained: Callable[[], None]) -> None:
        """Call back when the client has taken enough of what was written; it is cut off when it takes nothing for too
        long."""
        ...

    def conclude(self) -> None:
        """The present request is answered, or its client is gone."""
        ...

    def go_on(self, job: Callable[[], Awaitable[None]]) -> None:
        """Let a coroutine answer the present request."""
        ...


class UsageLog(Protocol):
    """Where usage records go so that nothing is lost."""

    def append(self, record: bytes) -> None:
        """Written when this returns (it survives a kill of the process). Never raises: a loss is counted."""
        ...

    def hold(self, record: bytes) -> Callable[[bytes], None]:
        """Append a provisional record, published only if this process dies before the returned function is called
        with the final record of the same id."""
        ...


class TokenCounter(Protocol):
    """Counts what an engine was given, after the fact."""

    async def count_prompt(self, target: Target, upstream_path: str, body: bytes) -> int | None:
        """Prompt tokens of a request as its engine counts them; None when the engine cannot say. Never raises."""
        ...


class Hints(Protocol):
    """Best-effort events for other services; rate-limited, never blocking, never raising."""

    def suspect(self, replica_id: ReplicaId, model_id: ModelId, reason: str) -> None:
        """A replica could not be reached."""
        ...

    def demand(self, route: Route) -> None:
        """A request arrived for an on-demand model that does not run."""
        ...


class Request:
    """One HTTP request, free of any framework, to be read only. `headers` have lower-case names."""

    __slots__ = ("client_ip", "headers", "index", "memo", "method", "path", "read_body", "target")

    def __init__(  # noqa: PLR0913 - a plain record
        self,
        method: str,
        path: str,
        headers: Headers,
        client_ip: str,
        read_body: Callable[[], Awaitable[bytes]],
        target: bytes = b"",
        index: dict[bytes, bytes] | None = None,
        memo: HeadMemo | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.client_ip = client_ip
        self.read_body = read_body
        """The whole body; raises ApiError 413, 408, or ClientGoneError."""
        self.target = target
        """Path and query as they were sent."""
        self.index = index
        """First value of each header, when the server has it ready."""
        self.memo = HeadMemo() if memo is None else memo

    def header(self, name: bytes) -> bytes | None:
        """First value of a header."""
        if self.index is None:
            self.index = dict(reversed(self.headers))
        return self.index.get(name)


class ClientGoneError(Exception):
    """The client closed the connection."""


class Reply(Protocol):
    """The way back to the client. While `watch` is on, a hang-up cancels the handling task; `gone` tells why."""

    @property
    def started(self) -> bool: ...

    @property
    def gone(self) -> bool: ...

    def watch(self) -> None:
        """From now on cancel the current task when the client hangs up. Call once the body has been read."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Fix status and headers; they leave together with the first bytes of the body."""
        ...

    async def send(self, chunk: bytes, *, more: bool) -> None:
        """Pass bytes on, waiting while the client is slow.

        Raises:
            ClientGoneError: the client takes nothing any more.
        """
        ...


class PlainReply(Reply, Protocol):
    """`Reply` for whoever never waits."""

    def on_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the client hangs up; at once if it has."""
        ...

    def finish(self) -> None:
        """Whatever the client does now is of no interest."""
        ...

    def begin_plain(self, lines: bytes, length: int | None) -> None:
        """Begin an answer 200 with whole header lines; `length` None: it comes in chunks."""
        ...

    def put(self, chunk: bytes, *, more: bool) -> None:
        """Pass bytes on. Raises ClientGoneError."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter as it was just before a moment and as it is; `first_at` is its first addition since."""

    before: int
    value: int
    first_at: datetime


class Counters(Protocol):
    """Counters that several gateways share. Every call raises TransientError when they are out of reach; an addition
    may have happened all the same."""

    async def add(self, subject: str, amount: int, operation: str | None = None) -> int:
        """Add, and return the new value. One `operation` is added once however often it is repeated."""
        ...

    async def last(self, subject: str) -> int | None:
        """The present value; None when there is none."""
        ...

    async def read(self, subject: str, since: datetime) -> Reading | None:
        """Value at `since` and now; None when the counter does not exist."""
        ...

    async def incarnation(self) -> str:
        """Changes when the counters of the last minutes were lost."""
        ...


@dataclass(frozen=True, slots=True)
class BucketSnapshot:
    """The documents of a KV bucket as JSON, and its last sequence."""

    sequence: int
    items: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the gateway knew at a moment, by bucket."""

    saved_at: datetime
    buckets: Mapping[str, BucketSnapshot]


class SnapshotStore(Protocol):
    """Keeps the last snapshot across restarts."""

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot, whole or not at all. Blocks. Raises OSError."""
        ...

    def load(self) -> Snapshot | None:
        """The last one; None when there is none or it is not to be trusted (logged). Blocks."""
        ...
