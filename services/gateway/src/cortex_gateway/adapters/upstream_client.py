"""Pooled HTTP/1.1 client for the hot path: keep-alive per endpoint, streaming, deadlines, closes on cancel."""

import asyncio
import ssl
from collections import deque

from cortex_gateway.adapters.bursts import Bursts
from cortex_gateway.adapters.upstream_connection import UpstreamConnection
from cortex_gateway.domain.routing import Endpoint
from cortex_gateway.ports import Failure, Headers, UpstreamError, UpstreamRequest
from cortex_gateway.wire.answers import AnswerHeads

_JSON_HEAD = b"content-type: application/json\r\naccept-encoding: identity\r\n"
_Address = tuple[str, int, bool]
"""Host, port, TLS."""


def address_of(endpoint: Endpoint) -> _Address:
    """What connections are kept by."""
    return (endpoint.host, endpoint.port, endpoint.tls)


def _head_of(endpoint: Endpoint, request: UpstreamRequest) -> bytes:
    return b"%b %b%b HTTP/1.1\r\n%b%b%bcontent-length: %d\r\n\r\n" % (
        request.method,
        endpoint.base_path.encode(),
        request.path.encode(),
        endpoint.head,
        request.extra_head,
        b"" if request.own_head else _JSON_HEAD,
        len(request.body),
    )


class PooledResponse:
    """UpstreamResponse on a pooled connection."""

    __slots__ = ("_address", "_client", "_connection", "_head", "_open", "status")

    def __init__(self, client: "PooledUpstreamClient", address: _Address, connection: UpstreamConnection) -> None:
        self._client = client
        self._address = address
        self._connection = connection
        self._open = True
        self._head = connection.head
        self.status = connection.head.status

    @property
    def headers(self) -> Headers:
        return self._head.headers

    def header(self, name: bytes) -> bytes | None:
        return self._head.index.get(name)

    async def read(self) -> bytes:
        return await self._connection.read()

    async def read_all(self, limit: int) -> bytes:
        connection = self._connection
        if connection.complete:
            body = connection.take()
            if len(body) > limit:
                raise UpstreamError(Failure.BROKEN, f"the answer is larger than {limit} bytes")
            return body
        parts: list[bytes] = []
        size = 0
        while part := await connection.read():
            size += len(part)
            if size > limit:
                raise UpstreamError(Failure.BROKEN, f"the answer is larger than {limit} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._client.release(self._address, self._connection)


class PooledUpstreamClient:
    """See `ports.UpstreamClient`.

    Args:
        connect_timeout_s: how long a connection may take.
        max_idle: idle connections kept per endpoint.
        idle_s: an idle connection older than this is not used again; below the engines' own 5 s.
    """

    def __init__(self, *, connect_timeout_s: float, max_idle: int = 256, idle_s: float = 4.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._idle: dict[_Address, deque[UpstreamConnection]] = {}
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._heads = AnswerHeads()
        self._bursts = Bursts(self._loop)
        self._tls = ssl.create_default_context()

    async def post(self, endpoint: Endpoint, request: UpstreamRequest) -> PooledResponse:
        address = address_of(endpoint)
        head = _head_of(endpoint, request)
        connection = self.take(address)
        if connection is not None:
            try:
                return await self._exchange(address, connection, head, request)
            except UpstreamError as error:
                if error.failure is not Failure.NO_ANSWER:
                    raise
        return await self._exchange(address, await self._connect(address), head, request)

    async def _exchange(
        self, address: _Address, connection: UpstreamConnection, head: bytes, request: UpstreamRequest
    ) -> PooledResponse:
        try:
            connection.begin(head, request.body, request.first_byte_timeout_s, request.idle_timeout_s)
            while not connection.head_done:
                await connection.wait()
        except BaseException:
            connection.close()
            raise
        return PooledResponse(self, address, connection)

    async def _connect(self, address: _Address) -> UpstreamConnection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self._loop, self._heads, self._bursts),
                    address[0],
                    address[1],
                    ssl=self._tls if address[2] else None,
                )
        except TimeoutError as error:
            raise UpstreamError(Failure.CONNECT, f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise UpstreamError(Failure.CONNECT, error.strerror or type(error).__name__, refused=refused) from error
        return connection

    def take(self, address: _Address) -> UpstreamConnection | None:
        """The most recently used live connection."""
        idle = self._idle.get(address)
        oldest = self._loop.time() - self._idle_s
        while idle:
            connection = idle.pop()
            if connection.alive and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None

    def release(self, address: _Address, connection: UpstreamConnection) -> None:
        """Keep a connection whose answer is complete; close any other."""
        if not connection.has_ended or self._closed:
            connection.close()
            return
        idle = self._idle.setdefault(address, deque())
        connection.idle_since = self._loop.time()
        idle.append(connection)
        if len(idle) > self._max_idle:
            idle.popleft().close()

    def forget_others(self, addresses: set[_Address]) -> None:
        """Close idle connections to endpoints that are not among `addresses`."""
        for address in [known for known in self._idle if known not in addresses]:
            for connection in self._idle.pop(address):
                connection.close()

    def close(self) -> None:
        """Close every idle connection; those in use close when released."""
        self._closed = True
        self.forget_others(set())


class OpenConnections:
    """See `ports.UpstreamPool`: the client's idle connections."""

    def __init__(self, client: PooledUpstreamClient) -> None:
        self._client = client

    def idle(self, endpoint: Endpoint) -> UpstreamConnection | None:
        return self._client.take(address_of(endpoint))

    @staticmethod
    def begin(line: UpstreamConnection, endpoint: Endpoint, request: UpstreamRequest) -> None:
        line.begin(_head_of(endpoint, request), request.body, request.first_byte_timeout_s, request.idle_timeout_s)

    def response(self, endpoint: Endpoint, line: UpstreamConnection) -> PooledResponse:
        return PooledResponse(self._client, address_of(endpoint), line)

    def release(self, endpoint: Endpoint, line: UpstreamConnection) -> None:
        self._client.release(address_of(endpoint), line)
