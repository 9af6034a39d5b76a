"""A request body that is still on its way."""

import asyncio
from collections.abc import Callable

from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.entrypoints.options import BodyBudget, ServerOptions
from cortex_gateway.entrypoints.refusals import bodies_full
from cortex_gateway.ports import ClientGoneError
from cortex_gateway.wire.chunks import ChunkDecoder


class IncomingBody:
    """Collects a body, within the limits, for whoever waits for it.

    Args:
        length: what Content-Length says; None for a chunked body.
        budget: pays for what is held; `held` has to be given back by the owner.
    """

    __slots__ = ("_budget", "_decoder", "_length", "_options", "_parts", "_waiter", "complete", "error", "held", "size")

    def __init__(self, length: int | None, options: ServerOptions, budget: BodyBudget) -> None:
        self._length = length
        self._options = options
        self._budget = budget
        self._decoder = ChunkDecoder(extensions=False) if length is None else None
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.size = 0
        self.held = 0
        self.complete = False
        self.error: Exception | None = None
        if length is not None:
            self._reserve(length)

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; returns what follows it.

        Raises:
            BadMessageError: the framing is broken; the connection cannot be used any further.
        """
        rest = b""
        if self._decoder is not None:
            part = self._decoder.feed(data)
            self.complete = self._decoder.done
            rest = self._decoder.rest
        else:
            missing = (self._length or 0) - self.size
            part, rest = (data, b"") if len(data) <= missing else (data[:missing], data[missing:])
        self.size += len(part)
        if self._decoder is None:
            self.complete = self.size == self._length
        elif self.error is None:
            self._reserve(len(part))
        if self.error is None:
            self._parts.append(part)
        else:
            self._parts.clear()
        if self.complete or self.error is not None:
            self._wake()
        return rest

    async def read(self, ask: Callable[[], None]) -> bytes:
        """The whole body; `ask` is called when the client has to be told to send it.

        Raises:
            ApiError: 413, 408 or 503; 400 when its framing broke.
            ClientGoneError: the client left.
        """
        if not self.complete and self.error is None:
            ask()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._options.body_timeout_s):
                    await self._waiter
            except TimeoutError as error:
                raise errors.body_too_slow() from error
            finally:
                self._waiter = None
        if self.error is not None:
            raise self.error
        return self.take()

    def take(self) -> bytes:
        """The whole body once it is complete; once."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def break_off(self, error: ClientGoneError | ApiError) -> None:
        """Nothing more will come."""
        if not self.complete and self.error is None:
            self.error = error
        self._wake()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return self._waiter is not None

    def _reserve(self, size: int) -> None:
        limit = self._options.max_body_bytes
        if self.held + size > limit:
            self.error = errors.body_too_large(limit)
        elif self._budget.take(size):
            self.held += size
        else:
            self.error = bodies_full()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
