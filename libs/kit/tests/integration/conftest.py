"""A connected, provisioned bus."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from cortex_kit.bus import Bus
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(nats_server.url), name="test")
    task = asyncio.create_task(bus.run())
    await asyncio.wait_for(bus.wait_connected(), timeout=10)
    await provision(bus.js)
    yield bus
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
