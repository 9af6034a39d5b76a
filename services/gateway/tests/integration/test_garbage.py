"""What connections to NATS leave behind when they are lost."""

import asyncio
import gc
from collections.abc import Iterator

import pytest
from nats.js.kv import KeyValue
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.streams import MODELS
from cortex_gateway.garbage import GarbageCollection
from cortex_kit.bus import Bus
from cortex_kit.kv import KVView
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@pytest.fixture
def mortal_nats() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def no_other_looks() -> Iterator[None]:
    """Nobody else looks for garbage meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watches() -> int:
    return sum(isinstance(one, KeyValue.KeyWatcher) for one in gc.get_objects())


@pytest.mark.usefixtures("no_other_looks")
async def test_the_watches_of_lost_connections_go(mortal_nats: NatsServer) -> None:
    bus = Bus(SecretStr(mortal_nats.url), name="test")
    view = KVView(bus, MODELS, ModelDocumentV1)
    garbage = GarbageCollection(settle_s=1.0)
    before = watches()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = [group.create_task(bus.run())]
        await bus.wait_connected()
        await provision(bus.js)
        running.append(group.create_task(view.run()))
        await view.wait_synced()

        for _ in range(2):
            await restart(mortal_nats, bus)
        assert watches() - before > 1, "without a look they stay"

        bus.on_reconnect(garbage.on_reconnect)
        running.append(group.create_task(garbage.run()))
        await restart(mortal_nats, bus)
        while watches() - before > 1:
            await asyncio.sleep(0.1)
        for task in running:
            task.cancel()


async def restart(nats: NatsServer, bus: Bus) -> None:
    """Until the bucket is watched again."""
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    bus.on_reconnect(reconnected)
    await asyncio.to_thread(nats.kill)
    await asyncio.to_thread(nats.start)
    await back.wait()
    await asyncio.sleep(0.5)
