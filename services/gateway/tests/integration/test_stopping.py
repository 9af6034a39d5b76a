"""A gateway that is told to stop, while clients go on asking on connections that are open."""

import asyncio
import random
import signal

import pytest

from .conftest import World

pytestmark = pytest.mark.integration
ASK = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
CLIENTS = 16


async def ask_until_told_to_go(port: int) -> int:
    """Answers, the last one of which said that it was. Raises when the connection ends without."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers, last = 0, False
    while not last:
        writer.write(ASK)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        answers += 1
        last = b"connection: close" in head
        await asyncio.sleep(random.uniform(0, 0.005))
    writer.close()
    return answers


async def test_nobody_who_goes_on_asking_is_cut_off(world: World) -> None:
    gateway = world.gateway
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asking = [group.create_task(ask_until_told_to_go(gateway.port)) for _ in range(CLIENTS)]
        await asyncio.sleep(0.5)
        gateway.signal(signal.SIGTERM)
    assert all(task.result() > 1 for task in asking)
    assert await asyncio.to_thread(gateway.wait) == 0
