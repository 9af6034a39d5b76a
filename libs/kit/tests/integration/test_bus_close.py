"""How a connection to NATS ends."""

import asyncio

import pytest
import uvloop
from pydantic import SecretStr

from cortex_kit.bus import Bus
from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration


def test_closing_while_the_server_is_away_is_no_failure(nats_server: NatsServer) -> None:
    """On the loop that services run on: its transports complain when there is still something to be sent."""

    async def close_late() -> list[BaseException | None]:
        bus = Bus(SecretStr(nats_server.url), name="test")
        running = asyncio.create_task(bus.run())
        await bus.wait_connected()
        await bus.nc.subscribe("x")
        nats_server.kill()
        while bus.connected:
            await asyncio.sleep(0.01)
        await bus.nc.publish("x", b"too late")
        running.cancel()
        return await asyncio.gather(running, return_exceptions=True)

    [ended] = uvloop.run(close_late())
    assert isinstance(ended, asyncio.CancelledError)
