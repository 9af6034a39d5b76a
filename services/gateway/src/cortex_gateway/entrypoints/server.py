"""The gateway's HTTP/1.1 server (docs/adr/0010): one coroutine per request, nothing between it and the pipeline."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Protocol

from cortex_gateway import metrics
from cortex_gateway.entrypoints.busy_poll import BusyPoll
from cortex_gateway.entrypoints.connection import ClientConnection
from cortex_gateway.entrypoints.operations import OPERATIONS, AsgiApp, run_asgi
from cortex_gateway.entrypoints.options import BodyBudget, ServerOptions, TrustedProxies
from cortex_gateway.ports import ClientLine, PlainReply, Reply, Request
from cortex_gateway.wire.fields import BadMessageError
from cortex_gateway.wire.requests import RequestHeads
from cortex_kit.logging import get_logger

log = get_logger()

Handler = Callable[[Request, Reply], Awaitable[None]]


class DirectPath(Protocol):
    """Answers most requests without a coroutine."""

    def take(self, line: ClientLine, request: Request, reply: PlainReply, body: bytes) -> bool:
        """Begin to answer; False: nothing was done. Never raises."""
        ...


BACKLOG = 4096
TLS_HANDSHAKE_S = 10.0
LAST_REQUEST_S = 1.0


class HttpServer:
    """`cortex_kit.runner.HttpServer`.

    Args:
        handler: answers every request but those for `operations`; never raises, save when cancelled.
        operations: ASGI application of the paths in `operations_paths`.
        direct: is offered each request whose body is there, before the handler.
        tls: speaks TLS when given.
    """

    def __init__(
        self,
        handler: Handler,
        operations: AsgiApp,
        options: ServerOptions,
        *,
        direct: DirectPath | None = None,
        tls: ssl.SSLContext | None = None,
        operations_paths: frozenset[str] = OPERATIONS,
    ) -> None:
        self.handler = handler
        self.direct = direct
        self.operations_paths = operations_paths
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.heads = RequestHeads(options.max_headers)
        self.budget = BodyBudget(options.max_bodies_bytes)
        self.trusted = TrustedProxies(options.trusted_proxies)
        self.busy_poll = BusyPoll(self.loop, options.busy_poll_s) if options.busy_poll_s else None
        self.closing = False
        self.date_line = b""
        self._operations = operations
        self._tls = tls
        self._connections: set[ClientConnection] = set()
        self._listener: asyncio.AbstractServer | None = None
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until `stop` was called, then until what is in flight has ended."""
        _raise_file_limit()
        self._tick()
        self._listener = await self.loop.create_server(
            self._connect,
            sock=listener,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=TLS_HANDSHAKE_S if self._tls is not None else None,
        )
        try:
            await self._stop.wait()
            self._take_no_more()
            self._close_idle()
            await self._empty.wait()
        finally:
            self._take_no_more()
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Take no more connections, and let those that are there end: with their next answer, which says that it is the
        last one, or after LAST_REQUEST_S without a request. Closed at once, a connection on which a request is on its way
        would be reset, and its client could not tell what became of it."""
        self._take_no_more()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_REQUEST_S):
                await self._empty.wait()
        self._close_idle()

    def _take_no_more(self) -> None:
        self.closing = True
        if self._listener is not None:
            self._listener.close()

    def _close_idle(self) -> None:
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()

    def stop(self) -> None:
        """Make `serve` return once nothing is in flight."""
        self._stop.set()

    # What connections need

    def admit(self, connection: ClientConnection) -> bool:
        """Register a connection; False when there are too many."""
        allowed = len(self._connections) < self.options.max_connections and not self.closing
        self._connections.add(connection)
        self._empty.clear()
        metrics.CONNECTIONS.set(len(self._connections))
        return allowed

    def forget(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        metrics.CONNECTIONS.set(len(self._connections))
        if not self._connections:
            self._empty.set()

    def note_refusal(self, error: BadMessageError) -> None:
        metrics.BAD_MESSAGES.labels(error.reason).inc()

    async def operate(self, request: Request, reply: Reply) -> None:
        """Answer an operations request."""
        await run_asgi(self._operations, request, reply)

    def _connect(self) -> ClientConnection:
        return ClientConnection(self)

    def _tick(self) -> None:
        """The date, once a second."""
        self.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        if not self._stop.is_set():
            self.loop.call_later(1.0, self._tick)


def _raise_file_limit() -> None:
    """As many connections as the system lets this process have."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not there on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.info("file_limit_kept", soft=soft, error=str(error))
