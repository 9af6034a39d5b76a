"""KV views against a real server that is killed, wiped and started again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cortex_contracts.base import KeyId
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.streams import KEYS
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_kit.kv import Change, KVStore, KVView
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration


def key(name: str, version: int = 1) -> KeyDocumentV1:
    return KeyDocumentV1(id=KeyId(name), digest="d" * 64, name=f"{name}@{version}", aggregateversion=version)


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def view(bus: Bus) -> AsyncIterator[KVView[KeyDocumentV1]]:
    view = KVView(bus, KEYS, KeyDocumentV1)
    task = asyncio.create_task(view.run())
    await asyncio.wait_for(view.wait_synced(), timeout=10)
    yield view
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def store(bus: Bus) -> KVStore[KeyDocumentV1]:
    return KVStore(bus, KEYS)


async def test_puts_and_deletes_reach_the_view(view: KVView[KeyDocumentV1], store: KVStore[KeyDocumentV1]) -> None:
    changes: list[Change[KeyDocumentV1]] = []
    view.on_change(changes.append)
    await store.put("a", key("a"))
    await until(lambda: "a" in view.items)
    await store.delete("a")
    await until(lambda: "a" not in view.items)
    assert [(change.old is None, change.new is None, change.live) for change in changes] == [
        (True, False, True),
        (False, True, True),
    ]
    await store.delete("never-there")


async def test_an_older_document_is_dropped(view: KVView[KeyDocumentV1], store: KVStore[KeyDocumentV1]) -> None:
    await store.put("a", key("a", 5))
    await store.put("a", key("a", 4))
    await store.put("b", key("b"))
    await until(lambda: "b" in view.items)
    assert view.items["a"].aggregateversion == 5


async def test_a_value_that_does_not_parse_changes_nothing(bus: Bus, view: KVView[KeyDocumentV1]) -> None:
    kv = await bus.js.key_value(KEYS.name)
    await kv.put("bad", b"{")
    await kv.put("good", key("good").model_dump_json().encode())
    await until(lambda: "good" in view.items)
    assert set(view.items) == {"good"}


async def test_store_lists_its_keys(store: KVStore[KeyDocumentV1]) -> None:
    assert await store.keys() == set()
    await store.put("a", key("a"))
    await store.put("b", key("b"))
    await store.delete("a")
    assert await store.keys() == {"b"}


async def test_view_keeps_its_items_while_the_server_is_away_and_follows_at_once_when_it_is_back(
    nats_server: NatsServer, bus: Bus, view: KVView[KeyDocumentV1], store: KVStore[KeyDocumentV1]
) -> None:
    await store.put("a", key("a"))
    await until(lambda: "a" in view.items)
    nats_server.kill()
    await until(lambda: not bus.connected)
    assert set(view.items) == {"a"}
    with pytest.raises(TransientError):
        await store.put("b", key("b"))
    nats_server.start()
    await until(lambda: bus.connected)
    await store.put("b", key("b"))
    await until(lambda: "b" in view.items, timeout=3)


async def test_a_wiped_store_replaces_the_projection(
    nats_server: NatsServer, bus: Bus, view: KVView[KeyDocumentV1], store: KVStore[KeyDocumentV1]
) -> None:
    for number in range(30):
        await store.put(f"old-{number}", key(f"old-{number}", 100))
    await until(lambda: len(view.items) == 30)
    nats_server.stop()
    nats_server.wipe()
    await until(lambda: not bus.connected)
    nats_server.start()
    await until(lambda: bus.connected)
    await provision(bus.js)
    await store.put("new", key("new", 1))
    await asyncio.sleep(0.5)
    assert len(view.items) == 30, "the old projection stands while the writers refill the store"
    await until(lambda: set(view.items) == {"new"}, timeout=8)


async def test_a_snapshot_of_two_thousand_keys_is_swapped_in_whole(
    bus: Bus, view: KVView[KeyDocumentV1], store: KVStore[KeyDocumentV1]
) -> None:
    await asyncio.gather(*(store.put(f"k{number}", key(f"k{number}")) for number in range(2000)))
    late = KVView(bus, KEYS, KeyDocumentV1)
    sizes: list[int] = []
    late.on_change(lambda change: sizes.append(len(late.items)))
    task = asyncio.create_task(late.run())
    await asyncio.wait_for(late.wait_synced(), timeout=10)
    await until(lambda: len(sizes) == 2000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert set(sizes) == {2000}


async def test_a_snapshot_is_never_short_however_many_watch(bus: Bus, store: KVStore[KeyDocumentV1]) -> None:
    await store.put("only", key("only"))
    for _ in range(15):
        views = [KVView(bus, KEYS, KeyDocumentV1) for _ in range(10)]
        tasks = [asyncio.create_task(view.run()) for view in views]
        await asyncio.gather(*(view.wait_synced() for view in views))
        assert [set(view.items) for view in views] == [{"only"}] * 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
