"""What a client's connection is apart from requests: writing under backpressure, pausing, and a decent end."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from cortex_gateway.ports import ClientGoneError
from cortex_gateway.timers import LazyTimer

if TYPE_CHECKING:
    from cortex_gateway.entrypoints.server import HttpServer

LINGER_S = 5.0
LINGER_BYTES = 256 * 1024**2


class ClientLine(asyncio.Protocol):
    """The base of `ClientConnection`."""

    __slots__ = (
        "_closed",
        "_deaf",
        "_drain_waiter",
        "_lingered",
        "_lingering",
        "_on_drained",
        "_reading_paused",
        "_server",
        "_timer",
        "_transport",
        "write_paused",
    )

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._timer = LazyTimer(server.loop, self._on_timer)
        self._transport = cast(asyncio.Transport, None)
        self._on_drained: Callable[[], None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._closed = self._deaf = self._lingering = self._reading_paused = False
        self._lingered = 0
        self.write_paused = False

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._on_drained is not None:
            on_drained, self._on_drained = self._on_drained, None
            self._timer.disarm()
            on_drained()
        elif self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    def await_drain(self, on_drained: Callable[[], None]) -> None:
        """See `ports.ClientLine`."""
        self._on_drained = on_drained
        self._timer.arm(self._server.options.stall_timeout_s)

    @property
    def date_line(self) -> bytes:
        return self._server.date_line

    def write(self, data: bytes) -> None:
        """Raises ClientGoneError once the connection is closed."""
        if self._closed:
            raise ClientGoneError
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises:
            ClientGoneError: it left, or took nothing for too long.
        """
        self._drain_waiter = self._server.loop.create_future()
        try:
            async with asyncio.timeout(self._server.options.stall_timeout_s):
                await self._drain_waiter
        except TimeoutError as error:
            self._transport.abort()
            raise ClientGoneError from error
        finally:
            self._drain_waiter = None
        if self._closed:
            raise ClientGoneError

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._closed:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._closed:
            self._reading_paused = False
            self._transport.resume_reading()

    def close(self, *, linger: bool = False) -> None:
        """Close when what was written has left. With `linger`, what the client still sends is read and dropped for a
        while, so that the answer is not lost to a reset."""
        if self._closed or self._lingering:
            return
        self._deaf = self._lingering = True
        self._timer.arm(LINGER_S)
        self._resume_reading()
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if not self._closed:
            self._transport.abort()

    def _discard(self, size: int) -> None:
        self._lingered += size
        if self._lingered > LINGER_BYTES:
            self._transport.abort()

    def _on_timer(self) -> None:
        if self._lingering or self._on_drained is not None:
            self._transport.abort()
