"""Is it ready? Answers true or false, never raises, never blocks for long."""

import asyncio
from collections.abc import Awaitable, Callable

from cortex_cli.stack.ports import LOOPBACK

Probe = Callable[[], Awaitable[bool]]

_DEADLINE_S = 2.0


def http_ready(port: int, path: str = "/readyz") -> Probe:
    """A service on loopback is ready when `path` answers 200."""

    async def probe() -> bool:
        request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n".encode()
        head = await _exchange(port, request)
        return head.split(b" ", 2)[1:2] == [b"200"]

    return probe


def nats_ready(port: int) -> Probe:
    """A NATS server greets whoever connects with an INFO line."""

    async def probe() -> bool:
        return (await _exchange(port, b"")).startswith(b"INFO")

    return probe


async def _exchange(port: int, request: bytes) -> bytes:
    try:
        async with asyncio.timeout(_DEADLINE_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request)
                await writer.drain()
                return await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return b""
