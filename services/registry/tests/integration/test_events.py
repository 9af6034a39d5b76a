"""The event log and its stream on a real Postgres and a real JetStream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from nats.aio.client import Client

from cortex_kit.ids import uuid7
from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration
Start = Callable[..., AbstractAsyncContextManager[Any]]
Serve = Callable[..., AbstractAsyncContextManager[str]]


async def publish(nc: Client, topic: str = "model.created", event_id: str | None = None, **changes: Any) -> str:
    event_id = event_id or uuid7()
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": "cortex/orchestrator/test",
        "type": f"{topic}.v1",
        "subject": "s",
        "time": datetime.now(UTC).isoformat(),
        "data": {"model_id": "m"},
    }
    # Without a message id the stream keeps each copy, as after its window of deduplication.
    await nc.jetstream().publish(topic, json.dumps(envelope | changes).encode())
    return event_id


async def listed(registry: Any, **query: Any) -> list[dict[str, Any]]:
    answer = await registry.client.get("/admin/events", params={"order": "oldest", "limit": 1000} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


class Stream:
    """A client of the stream: an EventSource in a few lines."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id: str | None = None
        self.comments = 0

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The next event; StopAsyncIteration at the end."""
        name, data = "message", ""
        async for line in self._lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line.startswith(":"):
                self.comments += 1
            elif field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not line and data:
                return name, json.loads(data)
        raise StopAsyncIteration

    async def take(self, count: int) -> list[str]:
        """The ids of the next events."""
        async with asyncio.timeout(20):
            return [(await self.next())[1]["id"] for _ in range(count)]


@asynccontextmanager
async def stream(url: str, last_id: str | None = None, token: str | None = None, **query: Any) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {token or 'an-admin-token-for-tests'}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False) as client,
        client.stream("GET", "/admin/events/stream", params=query) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


async def test_events_are_logged_once_and_found_by_every_filter(
    registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    model = (await registry.client.post("/admin/models", json={"name": "m1", "repo_id": "a/b"})).json()
    twice = await publish(nc, "container.failed", data={"model_id": "x", "replica_id": "x-0", "log": "nul \x00"})
    await publish(nc, "container.failed", twice)
    key = await publish(nc, "key.created", data={"key_id": "k"}, correlationid="request-9")
    newer = await publish(nc, "node.landed", data={"anything": [1]})
    await eventually(lambda: _has(registry, {twice, key, newer}))

    async def all_there() -> bool:
        return len(await listed(registry)) == 5

    await eventually(all_there)  # the model's creation and its first state, too
    everything = await listed(registry)
    assert ids(everything).count(twice) == 1
    assert [item["sequence"] for item in everything] == sorted(item["sequence"] for item in everything)
    assert ids(await listed(registry, type="container.*")) == [twice]
    assert ids(await listed(registry, type="key.created.v1,node.>")) == [key, newer]
    assert ids(await listed(registry, replica="x-0")) == [twice]
    assert ids(await listed(registry, key="k")) == [key]
    assert ids(await listed(registry, correlation="request-9")) == [key]
    assert ids(await listed(registry, source="orchestrator", type="key.*")) == [key]
    assert "model.created.v1" in {item["type"] for item in await listed(registry, model="m1")}
    assert {item["model_id"] for item in await listed(registry, model=model["id"])} == {model["id"]}
    assert len(await listed(registry, since=before.isoformat())) == len(everything)
    assert await listed(registry, since=(before + timedelta(hours=1)).isoformat()) == []
    newest = (await registry.client.get("/admin/events", params={"limit": 2})).json()
    assert ids(newest["items"]) == ids(everything)[:-3:-1]
    rest = (await registry.client.get("/admin/events", params={"limit": 1000, "after": newest["next"]})).json()
    assert ids(rest["items"]) == ids(everything)[:-2][::-1]
    assert rest["next"] is None


async def _has(registry: Any, wanted: set[str]) -> bool:
    return wanted <= set(ids(await listed(registry)))


BAD = (
    ("type=DROP%20TABLE", 422, "invalid_pattern"),
    ("type=a..b", 422, "invalid_pattern"),
    ("model=nope", 404, "model_not_found"),
    ("after=-1", 422, "invalid_request"),
    ("after=99999999999999999999", 422, "invalid_request"),
    ("after=x", 422, "invalid_request"),
    ("order=random", 422, "invalid_request"),
    ("limit=0", 422, "invalid_request"),
    ("limit=1001", 422, "invalid_request"),
    ("since=yesterday", 422, "invalid_request"),
    ("source=", 422, "invalid_request"),
)


async def test_a_bad_question_gets_a_clear_answer(registry: Any) -> None:
    for query, status, code in BAD:
        answer = await registry.client.get(f"/admin/events?{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code), query


async def test_a_message_that_is_no_event_is_buried_and_the_others_are_kept(
    registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    await nc.jetstream().publish("model.created", b"{not json")
    await publish(nc, event_id="with.dots")
    await publish(nc, type="Strange Type")
    good = await publish(nc)
    await eventually(lambda: _has(registry, {good}))

    async def buried() -> bool:
        return (await nc.jetstream().stream_info("DLQ")).state.messages == 3

    await eventually(buried)


async def test_progress_cannot_flood_the_log(registry: Any, nc: Client, eventually: Callable[..., Any]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for second in range(90):
        data = {"model_id": "m", "replica_id": "m-0", "image": "i", "current_bytes": second}
        await publish(nc, "container.pulling", data=data, time=(start + timedelta(seconds=second)).isoformat())
    late = {"model_id": "m", "replica_id": "m-0", "image": "i", "current_bytes": 0}
    await publish(nc, "container.pulling", data=late, time=start.isoformat())
    mark = await publish(nc)
    await eventually(lambda: _has(registry, {mark}))
    pulled = await listed(registry, type="container.pulling")
    assert [item["data"]["current_bytes"] for item in pulled] == [29, 59, 89]


@pytest.mark.timeout(90)
async def test_several_registries_give_one_order_and_a_reader_never_finds_a_row_behind_itself(
    start_registry: Start, nc: Client, eventually: Callable[..., Any]
) -> None:
    async with start_registry() as first, start_registry() as second:
        await first.ready()
        await second.ready()
        seen: list[str] = []
        cursor = 0
        done = asyncio.Event()

        async def read() -> None:
            nonlocal cursor
            while not done.is_set():
                page = await listed(second, after=cursor)
                seen.extend(ids(page))
                cursor = page[-1]["sequence"] if page else cursor

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            sent = await asyncio.gather(*(publish(nc) for _ in range(400)))
            await eventually(lambda: _has(first, set(sent)), 40)
            await asyncio.sleep(0.3)
            done.set()
        assert seen == ids(await listed(first)), "a reader that follows the cursor sees the whole log in its order"


@pytest.mark.timeout(90)
async def test_a_stream_resumes_without_gap_or_repetition_over_a_restart(
    start_registry: Start, serve: Serve, nc: Client
) -> None:
    sent: list[str] = []
    got: list[str] = []
    async with start_registry() as registry:
        await registry.ready()
        async with serve(registry) as url, stream(url, type="model.*") as events:
            sent += [await publish(nc) for _ in range(5)]
            await publish(nc, "key.created")
            got += await events.take(5)
            last_id = events.last_id
    sent += [await publish(nc) for _ in range(5)]
    async with start_registry() as registry:
        await registry.ready()
        async with serve(registry) as url, stream(url, last_id=last_id, type="model.*") as events:
            sent += [await publish(nc) for _ in range(5)]
            got += await events.take(10)
            assert got == sent
        async with serve(registry) as url, stream(url, after=0, type="model.*") as events:
            assert await events.take(15) == sent


async def test_a_stream_shows_that_it_lives_and_ends_cleanly_when_the_service_stops(
    start_registry: Start, serve: Serve, nc: Client
) -> None:
    async with start_registry(events_heartbeat_s=0.2) as registry:
        await registry.ready()
        async with serve(registry) as url, stream(url) as events:
            await asyncio.sleep(0.7)
            mark = await publish(nc)
            assert await events.take(1) == [mark]
            assert events.comments >= 2
            await registry.drain()
            with pytest.raises(StopAsyncIteration):
                await events.next()


async def test_too_many_clients_are_refused_and_bad_cursors_too(start_registry: Start, serve: Serve) -> None:
    async with start_registry(events_max_clients=1) as registry:
        await registry.ready()
        async with serve(registry) as url, stream(url):
            answer = await registry.client.get("/admin/events/stream")
            assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")
            assert answer.headers["retry-after"]
        for headers, query in (({"Last-Event-ID": "x"}, ""), ({}, "?after=999999999"), ({"Last-Event-ID": "-1"}, "")):
            answer = await registry.client.get(f"/admin/events/stream{query}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown_cursor")


@pytest.mark.timeout(60)
async def test_a_wiped_store_stops_neither_log_nor_stream(
    registry: Any, serve: Serve, nc: Client, nats_server: NatsServer
) -> None:
    async with serve(registry) as url, stream(url, type="node.*") as events:
        first = await publish(nc, "node.updated")
        assert await events.take(1) == [first]
        await asyncio.to_thread(nats_server.stop)
        nats_server.wipe()
        await asyncio.to_thread(nats_server.start)
        await registry.ready(30)
        again = await publish(nc, "node.updated", first)
        assert again == first
        second = await publish(nc, "node.updated")
        assert await events.take(1) == [second], "the event that came again is no news"
        assert ids(await listed(registry, type="node.*")) == [first, second]


@pytest.mark.timeout(60)
async def test_a_stream_outlives_its_database_connections(
    registry: Any, serve: Serve, nc: Client, database: Any
) -> None:
    async with serve(registry) as url, stream(url, type="node.*") as events:
        sent = [await publish(nc, "node.updated") for _ in range(3)]
        assert await events.take(3) == sent
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'cortex-registry%' AND datname = current_database()"
        )
        more = [await publish(nc, "node.updated") for _ in range(3)]
        assert await events.take(3) == more


async def test_what_is_too_old_or_too_much_leaves_the_log_and_a_stream_says_so(
    registry: Any, serve: Serve, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    from cortex_registry.adapters.eventlog import PostgresEventLog  # noqa: PLC0415
    from cortex_registry.adapters.postgres import Database  # noqa: PLC0415
    from cortex_registry.handlers.eventlog import EventPruner  # noqa: PLC0415

    sent = [await publish(nc) for _ in range(6)]
    await eventually(lambda: _has(registry, set(sent)))
    await database.execute("UPDATE event_log SET recorded_at = now() - interval '40 days' WHERE event_id = $1", sent[0])
    pool = Database(registry.settings.database_url, size=2, acquire_timeout_s=5, command_timeout_s=5)
    await pool.open()
    watching = asyncio.create_task(pool.run())
    try:
        await eventually(lambda: pool.readiness() is None)
        log = PostgresEventLog(pool)
        assert await EventPruner(log, max_age_s=30 * 86400, max_rows=1000).prune() == 1
        assert await EventPruner(log, max_age_s=30 * 86400, max_rows=3).prune() == 2
    finally:
        watching.cancel()
        await pool.close()
    assert ids(await listed(registry)) == sent[3:]
    async with serve(registry) as url, stream(url, after=0) as events:
        name, _ = await events.next()
        assert name == "gap"
        assert await events.take(3) == sent[3:]


async def test_a_client_that_may_see_it_no_more_is_ended(
    start_registry: Start, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cortex_registry.entrypoints.guards import RootToken  # noqa: PLC0415

    async with start_registry(events_recheck_s=0.2) as registry:
        await registry.ready()
        async with serve(registry) as url, stream(url) as events:

            async def nobody(*_: object) -> None:
                return None

            monkeypatch.setattr(RootToken, "authenticate", nobody)
            name, _ = await events.next()
            assert name == "signed_out"
            with pytest.raises(StopAsyncIteration):
                await events.next()
