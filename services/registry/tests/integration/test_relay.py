"""From a commit to KV and stream: order, failover, a wiped store, crashes."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import KeyNotFoundError

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1
from cortex_contracts.envelope import Envelope, parse_envelope
from cortex_contracts.events import Event
from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration
Start = Callable[..., AbstractAsyncContextManager[Any]]


def body(name: str) -> dict[str, Any]:
    return {"name": name, "repo_id": "org/model"}


async def events(nc: Client, subject: str) -> list[Envelope[Event]]:
    """Everything the stream holds for a subject, in order."""
    js = nc.jetstream()
    subscription = await js.pull_subscribe(
        subject, stream="EVENTS", config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    )
    found: list[Envelope[Event]] = []
    try:
        while True:
            messages = await subscription.fetch(100, timeout=0.3)
            found += [parse_envelope(message.data) for message in messages]
    except TimeoutError:
        return found
    finally:
        await subscription.unsubscribe()


async def stored(nc: Client, bucket: str, key: str) -> bytes | None:
    try:
        return (await (await nc.jetstream().key_value(bucket)).get(key)).value
    except KeyNotFoundError:
        return None


async def keys(nc: Client, bucket: str) -> set[str]:
    """Keys that hold a value. (nats-py's own `keys()` can miss all of them: its end marker races with the messages.)"""
    js = nc.jetstream()
    subjects = (await js.stream_info(f"KV_{bucket}", subjects_filter=f"$KV.{bucket}.>")).state.subjects or {}
    names = [subject.removeprefix(f"$KV.{bucket}.") for subject in subjects]
    return {name for name in names if await stored(nc, bucket, name) is not None}


async def test_changes_reach_kv_and_stream_in_order(
    registry: Any, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    model = (await registry.client.post("/admin/models", json=body("m"))).json()
    for tp_size in (2, 3, 4):
        await registry.client.patch("/admin/models/m", json={"tp_size": tp_size})
    await registry.client.post("/admin/models/m/start")

    async def is_five() -> bool:
        value = await stored(nc, "models", model["id"])
        return value is not None and ModelDocumentV1.model_validate_json(value).aggregateversion == 5

    await eventually(is_five)
    await registry.client.delete("/admin/models/m")

    async def is_gone() -> bool:
        empty = await database.fetchval("SELECT count(*) FROM outbox") == 0
        return empty and await stored(nc, "models", model["id"]) is None

    await eventually(is_gone)
    told = [event for event in await events(nc, "model.>") if event.type != "model.state_changed.v1"]
    assert [event.type for event in told] == ["model.created.v1", *["model.updated.v1"] * 4, "model.deleted.v1"]
    assert [event.aggregateversion for event in told] == [1, 2, 3, 4, 5, 6]
    assert {event.subject for event in told} == {model["id"]}
    assert all(event.correlationid for event in told)


async def test_a_crash_between_publishing_and_settling_has_no_effect_twice(
    registry: Any, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    await registry.client.post("/admin/models", json=body("m"))

    async def is_empty() -> bool:
        return await database.fetchval("SELECT count(*) FROM outbox") == 0

    await eventually(is_empty)
    told = await events(nc, "model.created")
    # The line is back, as if its deletion had never been committed.
    await database.execute(
        """
        INSERT INTO outbox (event_id, aggregate, aggregate_id, aggregate_version, event_type, data)
        SELECT $1, 'model', $2, 1, 'model.created.v1', $3
        """,
        told[0].id,
        told[0].subject,
        told[0].data.model_dump_json(),
    )
    await eventually(is_empty)
    assert [event.id for event in await events(nc, "model.created")] == [told[0].id]


@pytest.mark.timeout(60)
async def test_a_standby_takes_over_when_the_relays_connection_dies(
    start_registry: Start, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    async with start_registry() as first, start_registry() as second:
        await first.ready()
        await second.ready()
        made: list[str] = []
        for number in range(30):
            client = (first, second)[number % 2].client
            made.append((await client.post("/admin/models", json=body(f"m{number}"))).json()["id"])
            if number % 10 == 5:
                await database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'cortex-registry-relay' AND datname = current_database()"
                )

        async def all_there() -> bool:
            return set(made) == await keys(nc, "models")

        await eventually(all_there)
        await first.kill()
        last = (await second.client.post("/admin/models", json=body("last"))).json()["id"]
        await eventually(lambda: stored(nc, "models", last))
        created = [event.subject for event in await events(nc, "model.created")]
        assert created == [*made, last]


@pytest.mark.timeout(60)
async def test_a_wiped_store_is_filled_again_from_postgres(
    registry: Any, nc: Client, nats_server: NatsServer, eventually: Callable[..., Any]
) -> None:
    kept = (await registry.client.post("/admin/models", json=body("kept"))).json()["id"]
    gone = (await registry.client.post("/admin/models", json=body("gone"))).json()["id"]
    key = (await registry.client.post("/admin/keys", json={"name": "k"})).json()["id"]
    await eventually(lambda: stored(nc, "keys", key))

    await asyncio.to_thread(nats_server.stop)
    nats_server.wipe()
    during = await registry.client.post("/admin/models", json=body("during"))
    assert during.status_code == 201, "administration goes on without NATS"
    assert (await registry.client.delete(f"/admin/models/{gone}")).status_code == 204
    assert (await registry.client.get("/readyz")).status_code == 503
    await asyncio.to_thread(nats_server.start)
    await registry.ready()

    async def healed() -> bool:
        return await keys(nc, "models") == {kept, during.json()["id"]}

    await eventually(healed, 20)
    value = await eventually(lambda: stored(nc, "keys", key))
    assert KeyDocumentV1.model_validate_json(value).name == "k"
    types = [event.type for event in await events(nc, "model.>")]
    assert "model.created.v1" in types
    assert "model.deleted.v1" in types


@pytest.mark.timeout(60)
async def test_a_start_makes_the_buckets_equal_to_postgres(
    start_registry: Start, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    async with start_registry() as registry:
        await registry.ready()
        model = (await registry.client.post("/admin/models", json=body("m"))).json()
        await eventually(lambda: stored(nc, "models", model["id"]))
    kv = await nc.jetstream().key_value("models")
    document = ModelDocumentV1.model_validate_json((await kv.get(model["id"])).value or b"")
    # A backup of Postgres was restored: KV is ahead, and holds a model that the backup does not know.
    ahead = document.model_copy(update={"aggregateversion": 41, "name": "later"})
    await kv.put(model["id"], ahead.model_dump_json().encode())
    stray = "01890000-0000-7000-8000-00000000dead"
    await kv.put(stray, document.model_dump_json().encode())
    await kv.put("unreadable", b"{}")
    async with start_registry() as registry:
        await registry.ready()

        async def equal() -> bool:
            now = ModelDocumentV1.model_validate_json((await kv.get(model["id"])).value or b"")
            return now.aggregateversion == 42 and now.name == "m" and await keys(nc, "models") == {model["id"]}

        await eventually(equal)
    assert await database.fetchval("SELECT version FROM models") == 42


async def test_the_outbox_shows_its_age_while_nats_is_away(
    registry: Any, nats_server: NatsServer, database: Any, eventually: Callable[..., Any]
) -> None:
    await asyncio.to_thread(nats_server.stop)
    await registry.client.post("/admin/models", json=body("m"))

    async def old() -> bool:
        metrics = (await registry.client.get("/metrics")).text
        line = next(line for line in metrics.splitlines() if line.startswith("cortex_registry_outbox_age_seconds "))
        return float(line.split()[1]) > 0.5

    await eventually(old)
    assert await database.fetchval("SELECT count(*) FROM outbox") >= 1
    await asyncio.to_thread(nats_server.start)

    async def is_empty() -> bool:
        return await database.fetchval("SELECT count(*) FROM outbox") == 0

    await eventually(is_empty, 20)
