"""Settling requests: exactly one usage record each, written before the client sees the end of its answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import msgspec

from cortex_contracts.enums import Task, UsageOutcome
from cortex_gateway.domain.auth import ApiKey
from cortex_gateway.domain.requests import ApiRoute
from cortex_gateway.domain.routing import Route, Target
from cortex_gateway.domain.usage import Tokens, UsageData, UsageEnvelope, estimate_tokens
from cortex_gateway.ports import Headers, TokenCounter, UsageLog
from cortex_kit.clock import Clock

MAX_PENDING_COUNTS = 10_000
CONCURRENT_COUNTS = 16


class Reservation(Protocol):
    """What a request took of its key's limits. Both are idempotent."""

    def settle(self, tokens: int) -> None:
        """Correct it by what was used."""
        ...

    def release(self) -> None:
        """The request has ended: its stream counts no longer."""
        ...

    def headers(self) -> Headers:
        """What the client is told of its limits."""
        ...

    def head(self) -> bytes:
        """The same as header lines."""
        ...


class Trace(Protocol):
    """Where a request belongs among the traces of others."""

    @property
    def traceparent(self) -> bytes:
        """W3C trace context, for what follows from the request."""
        ...

    @property
    def head(self) -> bytes:
        """The same as a header line for the engine."""
        ...


class Exchange:
    """What has to be remembered of one request until it is settled."""

    __slots__ = (
        "api",
        "correlation_id",
        "first_byte",
        "key",
        "model",
        "permit",
        "request_id",
        "route",
        "sent_body",
        "settled",
        "started",
        "started_at",
        "stream",
        "target",
        "trace",
    )

    def __init__(  # noqa: PLR0913 - a plain record
        self,
        request_id: str,
        correlation_id: str | None,
        api: ApiRoute,
        key: ApiKey,
        model: str,
        started_at: datetime,
        started: float,
        *,
        stream: bool,
    ) -> None:
        self.request_id = request_id
        self.correlation_id = correlation_id
        self.api = api
        self.key = key
        self.model = model
        self.stream = stream
        self.started_at = started_at
        self.started = started
        self.route: Route | None = None
        self.target: Target | None = None
        self.sent_body: bytes | None = None
        """What the engine was sent; None while it was sent nothing."""
        self.first_byte: float | None = None
        self.settled = False
        self.permit: Reservation | None = None
        """What the request took of the limits of its key."""
        self.trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class _Count:
    """A provisional record whose prompt the engine still has to count."""

    data: UsageData
    exchange: Exchange
    target: Target
    body: bytes
    finish: Callable[[bytes], None]


Observer = Callable[[Exchange, UsageData], None]
"""Told of each request once, when its figures are final. Called on the hot path: quick, and never raises."""


class Bookkeeper:
    """Makes usage records, hands them to the log, tells the observers: the one place where a request ends."""

    def __init__(
        self,
        log: UsageLog,
        counter: TokenCounter,
        clock: Clock,
        source: str,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._log = log
        self._counter = counter
        self._clock = clock
        self._envelope = UsageEnvelope(source)
        self._observers = observers
        self._queue: asyncio.Queue[_Count] = asyncio.Queue(MAX_PENDING_COUNTS)

    def settle(self, exchange: Exchange, status: int, outcome: UsageOutcome, tokens: Tokens) -> None:
        """Record the request; later calls for the same exchange do nothing."""
        if not exchange.settled:
            exchange.settled = True
            data = self._data(exchange, status, outcome, tokens)
            self._log.append(self._encode(data, exchange))
            self._tell(exchange, data)

    def settle_interrupted(self, exchange: Exchange, status: int, outcome: UsageOutcome, tokens: Tokens | None) -> None:
        """Record a request whose answer broke off. `tokens` is None when the engine was sent nothing.

        Without reported usage the prompt is counted by the engine afterwards; should this process die meanwhile, the
        estimate written here is what remains.
        """
        if exchange.settled:
            return
        if tokens is None or not tokens.estimated or exchange.sent_body is None or exchange.target is None:
            self.settle(exchange, status, outcome, tokens or Tokens())
            return
        exchange.settled = True
        body = exchange.sent_body
        data = self._data(exchange, status, outcome, msgspec.structs.replace(tokens, prompt=estimate_tokens(body)))
        provisional = self._encode(data, exchange)
        if self._queue.full():
            self._log.append(provisional)
            self._tell(exchange, data)
            return
        finish = self._log.hold(provisional)
        self._queue.put_nowait(_Count(data, exchange, exchange.target, body, finish))

    async def run(self) -> None:
        """Count prompts off the hot path; a task of the service."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT_COUNTS):
                group.create_task(self._count_forever())

    async def drained(self) -> None:
        """Wait until every provisional record is final."""
        await self._queue.join()

    async def _count_forever(self) -> None:
        while True:
            count = await self._queue.get()
            try:
                prompt = await self._count_prompt(count)
                if prompt is not None:
                    count = replace(count, data=msgspec.structs.replace(count.data, prompt_tokens=prompt))
            finally:
                count.finish(self._encode(count.data, count.exchange))
                self._tell(count.exchange, count.data)
                self._queue.task_done()

    async def _count_prompt(self, count: _Count) -> int | None:
        """By the replica that had it, or, where that has died, by another of its model."""
        for target in (count.target, *_another(count)):
            prompt = await self._counter.count_prompt(target, count.exchange.api.upstream_path, count.body)
            if prompt is not None:
                return prompt
        return None

    def _tell(self, exchange: Exchange, data: UsageData) -> None:
        for observer in self._observers:
            observer(exchange, data)

    def _data(self, exchange: Exchange, status: int, outcome: UsageOutcome, tokens: Tokens) -> UsageData:
        key, route, target = exchange.key, exchange.route, exchange.target
        now = self._clock.monotonic()
        first = exchange.first_byte
        return UsageData(
            request_id=exchange.request_id,
            key_id=key.id,
            user_id=key.user_id,
            org_id=key.org_id,
            model_id=None if route is None else route.model.id,
            model=exchange.model,
            engine_type=None if route is None else route.engine_type,
            replica_id=None if target is None else target.replica_id,
            task=(exchange.api.task or Task.GENERATE) if route is None else route.task,
            route=exchange.api.path,
            stream=exchange.stream,
            status=status,
            outcome=outcome.value,
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            completion_tokens=tokens.completion,
            estimated=tokens.estimated,
            ttft_ms=None if first is None else _milliseconds(first - exchange.started),
            duration_ms=_milliseconds(now - exchange.started),
            started_at=exchange.started_at,
        )

    def _encode(self, data: UsageData, exchange: Exchange) -> bytes:
        trace = exchange.trace
        traceparent = None if trace is None else trace.traceparent
        return self._envelope.encode(data, self._clock.now(), exchange.correlation_id, traceparent)


def _another(count: _Count) -> tuple[Target, ...]:
    """At most one that calls the model by the same name."""
    own, route = count.target, count.exchange.route
    others = () if route is None else route.targets
    return tuple(one for one in others if one.replica_id != own.replica_id and one.served_name == own.served_name)[:1]


def _milliseconds(seconds: float) -> float:
    """With three digits; `round` takes three times as long."""
    return int(seconds * 1_000_000) / 1000
