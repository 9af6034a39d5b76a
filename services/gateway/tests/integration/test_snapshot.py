"""A gateway that starts while NATS is away: it serves what it knew, and what changed meanwhile counts once NATS is back."""

import asyncio
import contextlib
import json
import signal
import sys
import time

import httpx
import openai
import pytest

from cortex_contracts.base import KeyId
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.streams import KEYS
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
MESSAGES = [{"role": "user", "content": "Hi"}]


async def ready(world) -> dict[str, object]:
    async with httpx.AsyncClient(base_url=world.gateway.url) as http:
        return (await http.get("/readyz")).json()


async def until_source(world, source: str) -> dict[str, object]:
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.05)
            with contextlib.suppress(httpx.TransportError):
                details = (await ready(world))["details"]["projection"]
                if details["source"] == source:
                    return details


async def until_saved(world, key_id: str) -> str:
    path = world.gateway.spool / "projection.snapshot"
    async with asyncio.timeout(30):
        while not (path.exists() and key_id in path.read_text()):
            await asyncio.sleep(0.05)
    return path.read_text()


async def kill_gateway(world) -> None:
    world.gateway.signal(signal.SIGKILL)
    await asyncio.to_thread(world.gateway.wait)


async def test_it_serves_from_the_snapshot_and_obeys_what_changed_when_nats_is_back(new_world, nats_server, llama):
    world = await new_world(nats_server.url)
    secret = await world.serve(llama, extra_env={"PRIVATE": "plain-text-value"})
    revoked_id = KeyId(uuid7())
    revoked = await world.add_key(id=revoked_id)
    text = await until_saved(world, revoked_id)
    assert "plain-text-value" not in text
    assert secret not in text
    assert (await until_source(world, "live"))["age_s"] == 0
    await kill_gateway(world)
    await KVStore[KeyDocumentV1](world.bus, KEYS).delete(revoked_id)
    nats_server.kill()

    began = time.monotonic()
    await asyncio.to_thread(world.gateway.start)
    async with world.client(secret) as client, world.client(revoked) as late:
        answer = await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
        sys.stdout.write(f"answered {time.monotonic() - began:.2f} s after the start without NATS\n")
        assert answer.choices
        stream = await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2, stream=True)
        assert [chunk async for chunk in stream]
        details = (await ready(world))["details"]["projection"]
        assert details["source"] == "snapshot"
        assert details["age_s"] > 0
        assert details["keys_believed"] is True
        await late.models.list()
        with pytest.raises(openai.AuthenticationError):
            await late.with_options(api_key="ctx-unknown").models.list()

        nats_server.start()
        assert (await until_source(world, "live"))["age_s"] == 0
        with pytest.raises(openai.AuthenticationError):
            await late.models.list()
        await client.models.retrieve(llama.alias)
    records = await world.usage(2, timeout_s=60)
    assert {record.outcome for record in records} == {"completed"}
    assert "projection_from_snapshot" in world.gateway.log.read_text()


async def test_what_changed_just_before_nats_went_away_is_in_the_snapshot(new_world, nats_server, llama):
    world = await new_world(nats_server.url)
    await world.serve(llama)
    await until_saved(world, llama.model_id)
    last_id = KeyId(uuid7())
    last = await world.add_key(id=last_id)
    await world.until_served(last, llama.alias)
    nats_server.kill()
    await until_saved(world, last_id)
    await kill_gateway(world)
    await asyncio.to_thread(world.gateway.start)
    async with world.client(last) as client:
        await client.models.retrieve(llama.alias)
    assert (await ready(world))["details"]["projection"]["source"] == "snapshot"


async def test_keys_of_a_snapshot_that_is_too_old_are_refused(new_world, nats_server, llama):
    world = await new_world(nats_server.url, snapshot_max_age_s="3")
    secret = await world.serve(llama)
    await until_saved(world, llama.model_id)
    async with world.client(secret) as client:
        await kill_gateway(world)
        nats_server.kill()
        await asyncio.sleep(3)
        await asyncio.to_thread(world.gateway.start)
        with pytest.raises(openai.InternalServerError) as refused:
            await client.models.list()
        assert refused.value.status_code == 503
        assert refused.value.code == "keys_outdated"
        assert refused.value.response.headers["retry-after"]
        nats_server.start()
        await until_source(world, "live")
        await client.models.list()


async def test_a_snapshot_that_was_tampered_with_is_ignored(new_world, nats_server, llama):
    world = await new_world(nats_server.url)
    secret = await world.serve(llama)
    text = await until_saved(world, llama.model_id)
    await kill_gateway(world)
    nats_server.kill()
    path = world.gateway.spool / "projection.snapshot"
    head, _, body = text.partition("\n")
    path.write_text(head + "\n" + body.replace('"scopes":["*"]', '"scopes":["+"]'))
    starting = asyncio.create_task(asyncio.to_thread(world.gateway.start, 60))
    await until_source(world, "none")
    async with world.client(secret) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.models.list()
        assert refused.value.code == "gateway_starting"
        nats_server.start()
        await until_source(world, "live")
        await client.models.list()
    await starting
    assert any(
        json.loads(line)["event"] == "projection_snapshot_ignored"
        for line in world.gateway.log.read_text().splitlines()
        if line.startswith("{")
    )
