"""Usage records: committed before they are acknowledged, once each, whatever is away."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.envelope import join_batch
from cortex_contracts.events import UsageRecordedV1
from cortex_kit.events import new_envelope
from cortex_registry.adapters.migrate_command import run_migrations
from cortex_registry.adapters.migrations import load_migrations, migrate
from cortex_testing.servers import PostgresServer, create_database

pytestmark = pytest.mark.integration
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=40)


def record(number: int, **changes: Any) -> UsageRecordedV1:
    values: dict[str, Any] = {
        "request_id": f"request-{number}",
        "key_id": KeyId("key"),
        "model": "m",
        "model_id": ModelId("model"),
        "route": "/v1/chat/completions",
        "stream": False,
        "status": 200,
        "outcome": "completed",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "duration_ms": 1.5,
        "started_at": START + timedelta(seconds=number % 60),
    }
    return UsageRecordedV1(**(values | changes))


def envelope_of(usage: UsageRecordedV1) -> bytes:
    envelope = new_envelope(usage, source="cortex/gateway/test", aggregate_id=usage.request_id, now=datetime.now(UTC))
    return envelope.model_dump_json().encode()


async def publish(nc: Client, usage: UsageRecordedV1, *, event_id: str | None = None) -> None:
    # Without a message id the stream stores each copy, as after its window of deduplication.
    await nc.jetstream().publish("usage.recorded", envelope_of(usage))


async def waiting(nc: Client) -> int:
    info = await nc.jetstream().consumer_info("USAGE", "registry-usage")
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def test_records_are_stored_once_and_summed(registry: Any, nc: Client, eventually: Callable[..., Any]) -> None:
    for number in range(50):
        await publish(nc, record(number))
        await publish(nc, record(number))
    await publish(nc, record(100, model="other", key_id="k2", outcome="upstream_error", started_at=datetime.now(UTC)))

    async def done() -> bool:
        totals = (await registry.client.get("/admin/usage")).json()["totals"]
        return totals["requests"] == 51 and await waiting(nc) == 0

    await eventually(done)
    of_model = (await registry.client.get("/admin/usage", params={"model": "m", "limit": 5})).json()
    assert len(of_model["items"]) == 5
    assert {
        "requests": 50,
        "completed": 50,
        "prompt_tokens": 150,
        "cached_tokens": 0,
        "completion_tokens": 100,
        "total_tokens": 250,
        "avg_duration_ms": 1.5,
    }.items() <= of_model["totals"].items()
    of_key = (await registry.client.get("/admin/usage", params={"key_id": "k2"})).json()
    assert [item["outcome"] for item in of_key["items"]] == ["upstream_error"]
    since = (
        await registry.client.get(
            "/admin/usage", params={"since": (START + timedelta(seconds=49)).isoformat(), "model": "m"}
        )
    ).json()
    assert since["totals"]["requests"] == 1
    assert (await registry.client.get("/admin/usage?limit=0")).status_code == 422


async def test_a_poisonous_record_is_buried_and_the_others_are_kept(
    registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    await nc.jetstream().publish("usage.recorded", b"{not json")
    await publish(nc, record(1))
    await publish(nc, record(2, prompt_tokens=2**70))
    await publish(nc, record(3, model="x" * 5000))
    await publish(nc, record(4, model="nul\x00"))
    await publish(nc, record(5))

    async def done() -> bool:
        totals = (await registry.client.get("/admin/usage")).json()["totals"]
        return totals["requests"] == 3 and await waiting(nc) == 0

    await eventually(done)
    dead = await nc.jetstream().stream_info("DLQ")
    assert dead.state.messages == 3


async def test_of_a_batch_the_bad_records_are_buried_alone_and_a_repeated_batch_adds_nothing(
    registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    good = [envelope_of(record(number)) for number in range(20)]
    bad = [
        b'{"id":"torn"}',
        b"7",
        envelope_of(record(30, prompt_tokens=2**70)),
        envelope_of(record(31, model="nul\x00")),
    ]
    for _ in range(2):
        await nc.jetstream().publish("usage.recorded", join_batch([*good[:10], *bad, *good[10:]]))
    await nc.jetstream().publish("usage.recorded", b"[{},")

    async def done() -> bool:
        totals = (await registry.client.get("/admin/usage")).json()["totals"]
        return totals["requests"] == 20 and await waiting(nc) == 0

    await eventually(done)
    dead = await nc.jetstream().stream_info("DLQ")
    assert dead.state.messages == 2 * len(bad) + 1
    first = await nc.jetstream().get_msg("DLQ", seq=1)
    assert first.headers is not None
    assert "Cortex-Error" in first.headers


@pytest.mark.timeout(60)
async def test_with_postgres_away_the_api_says_so_and_no_record_is_lost(
    start_registry: Callable[..., AbstractAsyncContextManager[Any]], nc: Client, eventually: Callable[..., Any]
) -> None:
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        dsn = await create_database(server)
        assert await run_migrations(SecretStr(dsn), only_check=False, wait_s=5)
        async with start_registry(database_url=dsn) as registry:
            await registry.ready()
            await publish(nc, record(1))
            await asyncio.to_thread(server.kill)
            for number in range(2, 12):
                await publish(nc, record(number))
            started = asyncio.get_running_loop().time()
            answer = await registry.client.get("/admin/models")
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert asyncio.get_running_loop().time() - started < 3
            assert (await registry.client.get("/healthz")).status_code == 200
            status = (await registry.client.get("/admin/status")).json()
            assert status["counts"]["models"] is None

            async def unready() -> bool:
                response = await registry.client.get("/readyz")
                return response.status_code == 503 and "postgres" in response.json()["reasons"]

            await eventually(unready)
            await asyncio.to_thread(server.start)
            await registry.ready()

            async def done() -> bool:
                totals = (await registry.client.get("/admin/usage")).json()["totals"]
                return totals["requests"] == 11 and await waiting(nc) == 0

            await eventually(done, 30)
            made = await registry.client.post("/admin/keys", json={"name": "after"})
            assert made.status_code == 201
    finally:
        await asyncio.to_thread(server.close)


async def test_a_registry_starts_before_postgres_does(
    start_registry: Callable[..., AbstractAsyncContextManager[Any]], migrated_dsn: str
) -> None:
    away = migrated_dsn.replace(migrated_dsn.rsplit(":", 1)[1].split("/")[0], "1")
    async with start_registry(database_url=away) as registry:
        await asyncio.sleep(0.5)
        registry.raise_if_dead()
        answer = await registry.client.get("/admin/keys")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


async def test_a_rolled_back_batch_is_not_acknowledged(
    registry: Any, nc: Client, database: "asyncpg.Connection[asyncpg.Record]", eventually: Callable[..., Any]
) -> None:
    """The insert waits for a lock until its deadline passes: the messages come again, later."""
    await publish(nc, record(1))

    async def one() -> bool:
        return (await registry.client.get("/admin/usage")).json()["totals"]["requests"] == 1

    await eventually(one)
    transaction = database.transaction()
    await transaction.start()
    await database.execute("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE")
    await publish(nc, record(2))
    await asyncio.sleep(0.5)
    assert await waiting(nc) == 1
    await transaction.rollback()

    async def both() -> bool:
        return await waiting(nc) == 0 and await database.fetchval("SELECT count(*) FROM usage") == 2

    await eventually(both)


@pytest.mark.timeout(60)
async def test_two_registries_and_repeated_messages_count_each_record_once(
    start_registry: Callable[..., AbstractAsyncContextManager[Any]],
    nc: Client,
    database: "asyncpg.Connection[asyncpg.Record]",
    eventually: Callable[..., Any],
) -> None:
    async with start_registry() as one, start_registry() as other:
        await one.ready()
        await other.ready()
        for _ in range(3):
            for number in range(100):
                at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=number % 3)
                await publish(nc, record(number, key_id=KeyId(f"k{number % 7}"), started_at=at))

        async def done() -> bool:
            return await waiting(nc) == 0

        await eventually(done, 30)
        assert await database.fetchval("SELECT count(*) FROM usage") == 100
        sums = await database.fetchrow(
            "SELECT sum(requests) AS requests, sum(prompt_tokens) AS tokens FROM usage_hourly"
        )
        assert (sums["requests"], sums["tokens"]) == (100, 300)
        for registry in (one, other):
            body = (await registry.client.get("/admin/usage/aggregate", params={"group_by": "key"})).json()
            assert body["totals"]["requests"] == 100
            assert len(body["items"]) == 7


async def test_a_wrong_clock_loses_no_record_and_an_absurd_date_is_buried_with_its_reason(
    registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    now = datetime.now(UTC)
    for number, at in enumerate(
        (now - timedelta(days=390), now + timedelta(days=25), now - timedelta(days=500), now + timedelta(days=400))
    ):
        await publish(nc, record(number, started_at=at))

    async def done() -> bool:
        totals = (await registry.client.get("/admin/usage")).json()["totals"]
        return totals["requests"] == 2 and await waiting(nc) == 0

    await eventually(done)
    js = nc.jetstream()
    assert (await js.stream_info("DLQ")).state.messages == 2
    for sequence in (1, 2):
        headers = (await js.get_msg("DLQ", sequence)).headers
        assert headers is not None
        assert "started_at" in headers["Cortex-Error"]


async def test_a_key_remembers_its_last_use_to_the_minute(
    registry: Any, nc: Client, database: "asyncpg.Connection[asyncpg.Record]", eventually: Callable[..., Any]
) -> None:
    key = (await registry.client.post("/admin/keys", json={"name": "k"})).json()
    assert key["last_used_at"] is None
    at = datetime.now(UTC).replace(microsecond=0)
    await publish(nc, record(1, key_id=KeyId(key["id"]), started_at=at))

    async def used() -> Any:
        return (await registry.client.get(f"/admin/keys/{key['id']}")).json()["last_used_at"]

    assert datetime.fromisoformat(await eventually(used)) == at
    await publish(nc, record(2, key_id=KeyId(key["id"]), started_at=at + timedelta(seconds=9)))

    async def both() -> bool:
        return await database.fetchval("SELECT count(*) FROM usage") == 2 and await waiting(nc) == 0

    await eventually(both)
    assert datetime.fromisoformat(await used()) == at
    assert (await registry.client.get(f"/admin/keys/{key['id']}")).headers["etag"] == '"1"'


async def test_a_database_in_use_keeps_its_records_and_has_their_sums(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await migrate(connection, load_migrations()[:4])
        await connection.execute(
            """
            INSERT INTO usage
            SELECT 'r' || i, 'key', NULL, NULL, NULLIF(i % 3, 0)::text, 'm', 'vllm', NULL, 'generate', '/v1', FALSE, 200,
                   'completed', i, 0, 1, FALSE, 5, 10, timestamptz '2025-12-31 21:00:00+00' + i * interval '1 hour'
            FROM generate_series(0, 9) i
            UNION ALL
            SELECT 'absurd', 'key', NULL, NULL, NULL, 'm', NULL, NULL, 'generate', '/v1', FALSE, 200, 'completed', 0, 0, 0,
                   FALSE, NULL, 1, timestamptz '1970-01-01 00:00:00+00'
            """
        )
        before = await connection.fetch("SELECT * FROM usage ORDER BY request_id")
        await migrate(connection)
        after = await connection.fetch("SELECT * FROM usage ORDER BY request_id")
        assert [dict(row) for row in after] == [dict(row) for row in before]
        assert await connection.fetchval("SELECT count(*) FROM usage_202512") == 3
        assert await connection.fetchval("SELECT count(*) FROM usage_202601") == 7
        sums = await connection.fetch(
            "SELECT s.model, sum(h.requests) AS requests, sum(h.prompt_tokens) AS tokens FROM usage_hourly h "
            "JOIN usage_series s ON s.id = h.series_id GROUP BY 1 ORDER BY 1"
        )
        assert [tuple(row) for row in sums] == [("", 5, 18), ("m", 6, 27)]
        stale = await connection.fetchval("SELECT count(*) FROM usage_periods WHERE NOT clean")
        assert stale == 6  # three days, three months
    finally:
        await connection.close()
