"""Server-sent events (WHATWG HTML, "Server-sent events") over ASGI."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.identity import Identity
from cortex_registry.entrypoints.guards import REAUTHENTICATE
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.eventlog_feed import Notice

log = get_logger()
BUFFER = 64
SEND_TIMEOUT_S = 60.0
RECONNECT_MS = 1000
UNVERIFIED_S = 300.0
"""How long a stream outlives a database that cannot say whether its client is still welcome."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """How often a stream shows that it lives, and makes sure that its client may see it."""

    heartbeat_s: float
    recheck_s: float


class EventStreamResponse(Response):
    """Sends events until the client leaves, the service closes, or the client may see them no more."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[LoggedEvent | Notice],
        *,
        cursor: int,
        may_go_on: Callable[[], Awaitable[bool]],
        closing: asyncio.Event,
        timing: StreamTiming,
    ) -> None:
        super().__init__()
        self._events = events
        self._cursor = cursor
        self._may_go_on = may_go_on
        self._closing = closing
        self._timing = timing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue: asyncio.Queue[LoggedEvent | Notice] = asyncio.Queue(BUFFER)
        tasks: dict[str, asyncio.Task[Any]] = {
            "gone": asyncio.create_task(_gone(receive)),
            "closing": asyncio.create_task(self._closing.wait()),
            "pump": asyncio.create_task(self._pump(queue)),
            "serve": asyncio.create_task(self._serve(queue, send)),
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            reason = next(name for name in ("gone", "closing", "serve", "pump") if tasks[name].done())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            await self._events.aclose()
        served, pumped = tasks["serve"], tasks["pump"]
        for task in (pumped, served):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if reason == "serve":
            reason = str(served.result())
        metrics.EVENT_STREAMS_ENDED.labels(reason).inc()
        if reason not in ("gone", "stuck"):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, queue: "asyncio.Queue[LoggedEvent | Notice]") -> None:
        async for item in self._events:
            await queue.put(item)
        await asyncio.Event().wait()  # the last notice ends the stream once it is sent

    async def _serve(self, queue: "asyncio.Queue[LoggedEvent | Notice]", send: Send) -> str:
        """Returns why it ended."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            await _send(send, f"retry: {RECONNECT_MS}\nid: {self._cursor}\n\n".encode())
            return await self._send_all(queue, send)
        except TimeoutError:
            return "stuck"

    async def _send_all(self, queue: "asyncio.Queue[LoggedEvent | Notice]", send: Send) -> str:
        clock = asyncio.get_running_loop().time
        check_at = clock() + self._timing.recheck_s
        while True:
            item: LoggedEvent | Notice | None = None
            try:
                async with asyncio.timeout(max(0.0, min(self._timing.heartbeat_s, check_at - clock()))):
                    item = await queue.get()
            except TimeoutError:
                pass
            if clock() >= check_at:
                if not await self._may_go_on():
                    await _send(send, _notice(Notice("signed_out", "Sign in again.", last=True)))
                    return "signed_out"
                check_at = clock() + self._timing.recheck_s
            await _send(send, b": still here\n\n" if item is None else encode(item))
            if isinstance(item, Notice) and item.last:
                return item.name


def encode(item: LoggedEvent | Notice) -> bytes:
    """One event of the stream; JSON holds no line break, so that one data line is enough."""
    if isinstance(item, Notice):
        return _notice(item)
    # ASCII only: some clients take U+2028 and the like for line ends.
    data = json.dumps(item.cloud_event(), separators=(",", ":"))
    return f"id: {item.sequence}\nevent: {item.type}\ndata: {data}\n\n".encode()


def _notice(notice: Notice) -> bytes:
    data = json.dumps({"message": notice.message}, separators=(",", ":"))
    return f"event: {notice.name}\ndata: {data}\n\n".encode()


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StillWelcome:
    """Whether whoever opened a stream is still signed in and still has the right to see it."""

    def __init__(self, request: Request, right: Right) -> None:
        self._identify: Callable[[], Awaitable[Identity | None]] = request.scope[REAUTHENTICATE]
        self._right = right
        self._known_at = asyncio.get_running_loop().time()

    async def __call__(self) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            identity = await self._identify()
        except UnavailableError:
            return now - self._known_at < UNVERIFIED_S
        except DomainError:
            return False
        self._known_at = now
        return identity is not None and identity.may(self._right) and not identity.must_change_password
