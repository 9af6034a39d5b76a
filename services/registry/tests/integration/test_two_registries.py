"""Two registry processes, one killed with -9 under a load of writes: nothing committed is lost, doubled or disordered."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.js.errors import KeyNotFoundError

from cortex_contracts.documents import ModelDocumentV1
from cortex_testing.servers import NatsServer
from cortex_testing.services import ServiceProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TOKEN = "an-admin-token-for-tests"
MODELS, CHANGES, WRITERS = 8, 200, 8
FAIL_OVER_S = 20.0
"""Generous: the machine of a test is slow. What was measured is printed."""


@dataclass
class Writes:
    """What clients were told."""

    confirmed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Versions by model whose change was answered with 2xx."""
    unknown: int = 0
    """Requests that were cut off: they may or may not have happened."""
    answered: list[float] = field(default_factory=list)


@pytest.fixture
def registries(
    nats_server: NatsServer, postgres_dsn: str, secret_key: str, tmp_path: Path
) -> Iterator[list[ServiceProcess]]:
    settings = {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "DATABASE_URL": postgres_dsn,
        "ADMIN_TOKEN": TOKEN,
    }
    made = [ServiceProcess("registry", tmp_path, settings | {"INSTANCE": f"registry-{n}"}) for n in range(2)]
    made[0].run("migrate")
    try:
        # The first one leads the relay, so that the kill hits the leader.
        for process in made:
            process.start()
            process.wait_ready()
        yield made
    finally:
        for process in made:
            process.stop()


async def write(clients: list[httpx.AsyncClient], writes: Writes, model: str, number: int) -> None:
    """One change, on whichever registry answers; a request that was cut off is not repeated."""
    for client in (clients[number % 2], clients[1 - number % 2]):
        try:
            answer = await client.patch(f"/models/{model}", json={"request_defaults": {"seed": number}})
        except httpx.ConnectError:
            continue
        except httpx.TransportError:
            writes.unknown += 1
            return
        assert answer.status_code == 200, answer.text
        writes.confirmed[answer.json()["id"]].add(answer.json()["version"])
        writes.answered.append(time.monotonic())
        return
    raise AssertionError("no registry answers")


async def events_of(nc: Any) -> list[dict[str, Any]]:
    """Every envelope about a model, in the order of the stream."""
    subscription = await nc.jetstream().pull_subscribe("model.updated", stream="EVENTS")
    found: list[dict[str, Any]] = []
    while True:
        try:
            messages = await subscription.fetch(200, timeout=1)
        except TimeoutError:
            return found
        found += [json.loads(message.data) for message in messages]
        for message in messages:
            await message.ack()


async def test_a_killed_registry_loses_no_committed_change(
    registries: list[ServiceProcess], nc: Any, eventually: Any, database: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    clients = [
        httpx.AsyncClient(base_url=f"{one.url}/admin", headers=headers, timeout=30, trust_env=False)
        for one in registries
    ]
    try:
        names = [f"model-{number}" for number in range(MODELS)]
        for name in names:
            made = await clients[1].post("/models", json={"name": name, "repo_id": "a/b"})
            assert made.status_code == 201, made.text
        writes, queue = Writes(), iter(range(CHANGES))
        killed: list[float] = []

        async def writer() -> None:
            for number in queue:
                if number == CHANGES // 2:
                    await asyncio.to_thread(registries[0].kill)
                    killed.append(time.monotonic())
                await write(clients, writes, names[number % MODELS], number)

        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(writer())

        async def drained() -> bool:
            return await database.fetchval("SELECT count(*) FROM outbox") == 0

        await eventually(drained, FAIL_OVER_S + 20)
        emptied = time.monotonic() - killed[0]
        await check(writes, nc, database)
        confirmed = sum(len(versions) for versions in writes.confirmed.values())
        with capsys.disabled():
            print(  # noqa: T201 - figures for the reader
                f"\ntwo registries: {CHANGES} changes by {WRITERS} writers, {confirmed} answered with 2xx, "
                f"{writes.unknown} cut off by the kill; all of them in bucket and stream {emptied:.1f} s after it"
            )
        assert confirmed + writes.unknown == CHANGES
        assert emptied < FAIL_OVER_S
    finally:
        for client in clients:
            await client.aclose()


async def check(writes: Writes, nc: Any, database: Any) -> None:
    """Bucket and stream say what the database says, each change once and in order."""
    rows = await database.fetch("SELECT id, version FROM models")
    stored = {str(row["id"]): row["version"] for row in rows}
    envelopes = await events_of(nc)
    ids = [envelope["id"] for envelope in envelopes]
    assert len(set(ids)) == len(ids), "an event lies on the stream twice"
    versions: dict[str, list[int]] = defaultdict(list)
    for envelope in envelopes:
        versions[envelope["subject"]].append(envelope["aggregateversion"])
    bucket = await nc.jetstream().key_value("models")
    for model, version in stored.items():
        assert versions[model] == list(range(2, version + 1)), "a change is missing, doubled or out of order"
        assert writes.confirmed[model] <= set(versions[model])
        document = ModelDocumentV1.model_validate_json((await bucket.get(model)).value)
        assert document.aggregateversion == version
    revisions = await database.fetchval("SELECT count(*) FROM model_revisions WHERE action = 'model.update'")
    assert revisions == len(envelopes)


async def test_a_registry_whose_twin_is_killed_takes_the_relay_over_in_seconds(
    registries: list[ServiceProcess], nc: Any, eventually: Any, database: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{registries[1].url}/admin"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        await asyncio.to_thread(registries[0].kill)
        killed = time.monotonic()
        model = (await client.post("/models", json={"name": "m", "repo_id": "a/b"})).json()["id"]
        bucket = await nc.jetstream().key_value("models")

        async def published() -> bool:
            try:
                return (await bucket.get(model)).value is not None
            except KeyNotFoundError:
                return False

        await eventually(published, FAIL_OVER_S)
        took = time.monotonic() - killed
        with capsys.disabled():
            print(f"\nrelay: the first change after the kill is in the bucket {took:.2f} s later")  # noqa: T201 - figures
