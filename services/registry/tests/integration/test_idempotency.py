"""Creates that are sent twice, on a real Postgres."""

import asyncio
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from cortex_registry.adapters.claims import Claim
from cortex_registry.adapters.idempotency import Answer, Earlier, PostgresIdempotency
from cortex_registry.adapters.postgres import Database

pytestmark = pytest.mark.integration

Connection = asyncpg.Connection


async def test_sixteen_simultaneous_creates_with_one_key_make_one_api_key(registry: Any, database: Any) -> None:
    headers = {"Idempotency-Key": "order-66"}
    posts = [registry.client.post("/admin/keys", json={"name": "shop"}, headers=headers) for _ in range(16)]
    answers = await asyncio.gather(*posts)
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(201) >= 1
    assert set(codes) <= {201, 409}
    again = await registry.client.post("/admin/keys", json={"name": "shop"}, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    plain = {answer.json()["key"] for answer in [*answers, again] if answer.status_code == 201}
    assert len(plain) == 1
    assert await database.fetchval("SELECT count(*) FROM api_keys") == 1
    row = await database.fetchrow("SELECT * FROM idempotency_keys")
    assert plain.pop() not in row["answer_sealed"], "the answer holds a key and must be sealed"
    reused = await registry.client.post("/admin/keys", json={"name": "other"}, headers=headers)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_crash_before_any_change_frees_the_key_after_a_minute(
    registry: Any, database: Any, migrated_dsn: str, secret_key: str
) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await registry.client.post("/admin/keys", json={"name": "a"}, headers=headers)
    await database.execute("UPDATE idempotency_keys SET status = NULL, answer_sealed = NULL, committed_at = NULL")
    busy = await registry.client.post("/admin/keys", json={"name": "a"}, headers=headers)
    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency_in_progress")
    await database.execute("UPDATE idempotency_keys SET created_at = now() - interval '61 seconds'")
    free = await registry.client.post("/admin/keys", json={"name": "a"}, headers=headers)
    assert free.status_code == 201
    assert free.json()["id"] != first.json()["id"]


async def test_a_claim_that_was_lost_neither_keeps_an_answer_nor_releases_the_key(
    registry: Any, database: Any, migrated_dsn: str, secret_key: str
) -> None:
    pool = Database(SecretStr(migrated_dsn), size=2, acquire_timeout_s=5, command_timeout_s=5)
    await pool.open()
    watching = asyncio.create_task(pool.run())
    try:
        while pool.readiness() is not None:
            await asyncio.sleep(0.02)
        store = PostgresIdempotency(pool, SecretStr(secret_key), crashed_after_s=0.2)
        slow = await store.claim("root", "k", "d" * 64)
        assert isinstance(slow, Claim)
        await store.renew(slow)
        await asyncio.sleep(0.3)
        quick = await store.claim("root", "k", "d" * 64)
        assert isinstance(quick, Claim), "the key is free again"
        await store.keep(slow, Answer(201, (), b"slow"))
        await store.release(slow)
        assert await store.claim("root", "k", "d" * 64) == Earlier("d" * 64, None)
        await store.keep(quick, Answer(201, (("etag", '"1"'),), b"quick"))
        assert await store.claim("root", "k", "d" * 64) == Earlier("d" * 64, Answer(201, (("etag", '"1"'),), b"quick"))
        assert isinstance(await store.claim("user:1", "k", "d" * 64), Claim), "keys belong to who asks"
        await database.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
        assert isinstance(await store.claim("root", "k", "e" * 64), Claim), "a day later it is a new key"
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        await pool.close()


async def test_a_registry_that_dies_between_the_change_and_its_answer_neither_repeats_it_nor_answers_wrongly(
    registry: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "killed"}
    parked = asyncio.Event()

    async def never(*_: Any) -> None:
        parked.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(PostgresIdempotency, "keep", never)
        patched.setattr(PostgresIdempotency, "release", never)
        post = asyncio.create_task(registry.client.post("/admin/keys", json={"name": "a"}, headers=headers))
        async with asyncio.timeout(20):
            await parked.wait()
        post.cancel()  # as the process dies: nothing after this line of it runs
        await asyncio.wait([post])
    assert await database.fetchval("SELECT count(*) FROM api_keys") == 1
    row = await database.fetchrow("SELECT * FROM idempotency_keys")
    assert row["committed_at"] is not None
    assert row["status"] is None
    early = await registry.client.post("/admin/keys", json={"name": "a"}, headers=headers)
    assert (early.status_code, early.json()["code"]) == (409, "idempotency_in_progress")
    await database.execute("UPDATE idempotency_keys SET created_at = now() - interval '61 seconds'")
    late = await registry.client.post("/admin/keys", json={"name": "a"}, headers=headers)
    assert (late.status_code, late.json()["code"]) == (409, "idempotent_answer_lost")
    assert await database.fetchval("SELECT count(*) FROM api_keys") == 1


async def test_a_create_whose_key_was_taken_over_meanwhile_is_rolled_back(
    registry: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PostgresIdempotency.claim

    async def stolen(self: PostgresIdempotency, actor: str, key: str, digest: str) -> Any:
        found = await original(self, actor, key, digest)
        await database.execute("UPDATE idempotency_keys SET claim = gen_random_uuid()")
        return found

    monkeypatch.setattr(PostgresIdempotency, "claim", stolen)
    answer = await registry.client.post("/admin/keys", json={"name": "a"}, headers={"Idempotency-Key": "slow"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_claim_lost")
    assert await database.fetchval("SELECT count(*) FROM api_keys") == 0
    assert await database.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_create_that_is_refused_leaves_its_key_free(registry: Any, database: Any) -> None:
    headers = {"Idempotency-Key": "again"}
    refused = await registry.client.post("/admin/keys", json={"name": ""}, headers=headers)
    assert refused.status_code == 422
    assert await database.fetchval("SELECT count(*) FROM idempotency_keys") == 0
