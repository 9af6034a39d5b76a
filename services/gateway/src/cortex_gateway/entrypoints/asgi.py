"""Raw ASGI: operations endpoints go to FastAPI, everything else to the pipeline without framework objects."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cortex_gateway.domain import errors
from cortex_gateway.pipeline import Gateway
from cortex_gateway.ports import ClientGoneError, Headers, Request
from cortex_gateway.timers import LazyTimer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})


class AsgiReply:
    """`ports.Reply` on ASGI's send and receive."""

    __slots__ = (
        "_finished",
        "_receive",
        "_send",
        "_stall",
        "_stall_timeout_s",
        "_task",
        "_watcher",
        "gone",
        "started",
    )

    def __init__(self, receive: Receive, send: Send, stall_timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._stall_timeout_s = stall_timeout_s
        self._stall: LazyTimer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[Message] | None = None
        self._finished = False
        self.started = False
        self.gone = False

    def watch(self) -> None:
        self._task = asyncio.current_task()
        self._watcher = asyncio.ensure_future(self._next_message())
        self._watcher.add_done_callback(self._on_message)

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes, *, more: bool) -> None:
        if self.gone:
            raise ClientGoneError
        if not more:
            # The server reports the end of a complete answer as a disconnect: from here on that means nothing.
            self._finished = True
        elif self._stall is None:
            self._stall = LazyTimer(asyncio.get_running_loop(), self._hang_up)
        if self._stall is not None:
            self._stall.arm(self._stall_timeout_s)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        if self._stall is not None:
            self._stall.disarm()

    def finish(self) -> None:
        """The request is handled; whatever the client does now is of no interest."""
        self._finished = True
        if self._stall is not None:
            self._stall.cancel()
        if self._watcher is not None and not self._watcher.done():
            self._watcher.cancel()

    async def _next_message(self) -> Message:
        return await self._receive()

    def _on_message(self, watcher: "asyncio.Task[Message]") -> None:
        if not watcher.cancelled() and watcher.exception() is None and not self._finished:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self.gone and self._task is not None and not self._task.done():
            self.gone = True
            self._task.cancel()


class GatewayApp:
    """The service's ASGI application."""

    def __init__(
        self,
        gateway: Gateway,
        operations: AsgiApp,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        stall_timeout_s: float,
    ) -> None:
        self._gateway = gateway
        self._operations = operations
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._stall_timeout_s = stall_timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPERATIONS:
            await self._operations(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        client: tuple[str, int] | None = scope.get("client")
        reply = AsgiReply(receive, send, self._stall_timeout_s)
        request = Request(
            method=scope["method"],
            path=scope["path"],
            headers=headers,
            client_ip=client[0] if client else "",
            read_body=lambda: self._read_body(headers, receive),
        )
        try:
            await self._gateway.handle(request, reply)
        finally:
            reply.finish()

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes:
        limit = self._max_body_bytes
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise errors.body_too_large(limit)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await _collect(receive, limit)
        except TimeoutError as error:
            raise errors.body_too_slow() from error


async def _collect(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise errors.body_too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
