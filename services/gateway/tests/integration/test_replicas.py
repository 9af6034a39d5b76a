"""Several replicas, models and gateways, real ones: failover, queues, fallbacks, cancels, sleeping models, affinity."""

import asyncio
import json
import re
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from pydantic import SecretStr

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Lifecycle, ReplicaState, UsageOutcome, Verdict
from cortex_contracts.streams import KEYS, MODELS, REPLICAS, VERDICTS
from cortex_gateway.domain.routing import Keys as EngineKeys
from cortex_gateway.projection import Projection, Views
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock, next_version
from cortex_kit.kv import KVStore, KVView
from cortex_kit.provision import provision

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SHORT: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Write a very long story about a river."}],
    "max_tokens": 900,
    "ignore_eos": True,
}


@pytest.fixture(autouse=True)
async def _nothing_left(nats_url) -> None:
    """The replicas of the tests before are forgotten; their servers run on."""
    bus = Bus(SecretStr(nats_url), name="test")
    task = asyncio.create_task(bus.run())
    await bus.wait_connected()
    await provision(bus.js)
    for store in (KVStore[ReplicaDocumentV1](bus, REPLICAS), KVStore[VerdictDocumentV1](bus, VERDICTS)):
        for key in await store.keys():
            await store.delete(key)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def serve_pair(world, pair, *gateways, **fields: object) -> str:
    """Replicas of one model announced; a key that every gateway knows."""
    secret = await world.serve(pair[0], **fields)
    for one in pair:
        await world.add_replica(one)
        await world.add_verdict(one, slots_total=2)
    for gateway in (world.gateway, *gateways):
        await until_targets(gateway.url, len(pair))
    return secret


async def until_targets(url: str, count: int) -> None:
    """The gateway routes to at least so many replicas."""
    async with asyncio.timeout(10), httpx.AsyncClient() as http:
        while True:
            found = re.search(r"^gateway_routing_targets (\d+)", (await http.get(f"{url}/metrics")).text, re.MULTILINE)
            if found is not None and int(found[1]) >= count:
                return
            await asyncio.sleep(0.02)


async def until_targets_are(url: str, count: int) -> float:
    """When the gateway was first seen to route to exactly so many replicas, by the wall clock."""
    async with asyncio.timeout(10), httpx.AsyncClient() as http:
        while True:
            text = (await http.get(f"{url}/metrics")).text
            if re.search(rf"^gateway_routing_targets {count}", text, re.MULTILINE) is not None:
                return time.time()


def client(url: str, secret: str, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{url}/v1", headers={"authorization": f"Bearer {secret}", **headers}, timeout=60)


async def chat(http: httpx.AsyncClient, model: str, **body: Any) -> httpx.Response:
    return await http.post("/chat/completions", json={"model": model, **SHORT, **body})


def failures(gateway, replica: str) -> list[float]:
    """When this gateway failed to reach a replica: seconds of the wall clock, from its log."""
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    moments = [
        line["timestamp"] for line in lines if line["event"] == "upstream_failed" and line["replica_id"] == replica
    ]
    return [
        time.mktime(time.strptime(one[:19], "%Y-%m-%dT%H:%M:%S")) + float(one[19:-1]) - time.timezone for one in moments
    ]


async def test_a_killed_replica_is_left_alone_at_once_and_costs_no_request(
    world, pair, new_gateway, llama_server_binary, smollm2_gguf, secret_key
):
    """Failover is measured and printed: until the last attempt at the dead one, and until its verdict is everywhere."""
    second = await asyncio.to_thread(new_gateway)
    victim = type(pair[0])(llama_server_binary, smollm2_gguf, secret_key, sibling=pair[1])
    await asyncio.to_thread(victim.start)
    secret = await serve_pair(world, (*pair, victim), second)
    statuses: Counter[int] = Counter()
    stop = asyncio.Event()

    async def load(url: str) -> None:
        async with client(url, secret) as http:
            while not stop.is_set():
                statuses[(await chat(http, pair[0].alias)).status_code] += 1

    loads = [asyncio.create_task(load(gateway.url)) for gateway in (world.gateway, second) for _ in range(3)]
    try:
        await asyncio.sleep(1.0)
        killed = time.time()
        victim.kill()
        await asyncio.sleep(0.6)
        spread = [asyncio.create_task(until_targets_are(gateway.url, 2)) for gateway in (world.gateway, second)]
        await asyncio.sleep(0.05)
        told = time.time()
        await world.add_verdict(victim, Verdict.UNHEALTHY, "killed")
        everywhere = [round((one - told) * 1000) for one in await asyncio.gather(*spread)]
        await asyncio.sleep(0.3)
    finally:
        stop.set()
        await asyncio.gather(*loads)
        victim.kill()
    for name, gateway in (("first", world.gateway), ("second", second)):
        tried = failures(gateway, victim.replica_id)
        late = [moment for moment in tried if moment > told]
        after = [round((one - killed) * 1000) for one in tried]
        print(f"{name} gateway: {len(tried)} attempts failed, {after} ms after the kill")  # noqa: T201
        assert len(tried) <= 8, "a breaker stands before the dead replica, one probe now and then"
        assert len(late) <= 1
    print(f"the verdict was seen at the gateways after {everywhere} ms")  # noqa: T201
    print(f"answers: {dict(statuses)}")  # noqa: T201
    assert set(statuses) == {200}, "every request in flight at the dead replica was answered by another"


async def test_more_requests_than_slots_wait_interactive_first_and_too_many_are_refused(new_world, nats_url, pair):
    world = await new_world(nats_url, max_queue="6")
    await serve_pair(world, pair[:1])
    model = pair[0].alias
    batch, interactive = await world.add_key(priority="batch"), await world.add_key()
    await world.until_served(interactive, model)
    order: list[str] = []

    async def ask(kind: str, secret: str) -> int:
        async with client(world.gateway.url, secret) as http:
            response = await chat(http, model, max_tokens=40, ignore_eos=True)
        order.append(kind)
        return response.status_code

    batches = []
    for _ in range(6):
        batches.append(asyncio.create_task(ask("batch", batch)))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    async with client(world.gateway.url, interactive) as http:
        metrics = (await http.get(f"{world.gateway.url}/metrics")).text
    assert f'gateway_queue_length{{model="{model}"}} 4.0' in metrics
    quick = [asyncio.create_task(ask("interactive", interactive)) for _ in range(2)]
    await asyncio.sleep(0.05)
    async with client(world.gateway.url, batch) as http:
        refused = await chat(http, model)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "model_overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert await asyncio.gather(*batches, *quick) == [200] * 8
    assert max(index for index, kind in enumerate(order) if kind == "interactive") <= 4, order


async def test_who_hangs_up_in_the_queue_never_reaches_the_engine(world, pair):
    secret = await serve_pair(world, pair[:1])
    async with client(world.gateway.url, secret) as http:
        busy = [asyncio.create_task(chat(http, pair[0].alias, max_tokens=120, ignore_eos=True)) for _ in range(2)]
        await asyncio.sleep(0.2)
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/chat/completions", json={"model": pair[0].alias, **SHORT}, timeout=0.1)
        await asyncio.gather(*busy)
    records = await world.usage(3)
    [gone] = [record for record in records if record.outcome is UsageOutcome.CLIENT_DISCONNECTED]
    assert (gone.prompt_tokens, gone.completion_tokens, gone.replica_id) == (0, 0, None)


async def test_a_fallback_answers_for_a_model_that_is_down_and_is_named_and_charged(world, pair, llama):
    await world.add_model(llama)
    await world.add_replica(llama)
    await world.add_verdict(llama)
    secret = await world.serve(pair[0], fallbacks=(llama.alias,))
    narrow = await world.add_key(models=(pair[0].alias,))
    await world.until_served(narrow, pair[0].alias)
    async with client(world.gateway.url, secret) as http:
        own = await chat(http, pair[0].alias)
        await world.add_verdict(pair[0], Verdict.UNHEALTHY, "it went away")
        await asyncio.sleep(0.1)
        other = await chat(http, pair[0].alias)
    async with client(world.gateway.url, narrow) as http:
        refused = await chat(http, pair[0].alias)
    assert (own.headers["x-cortex-model"], own.json()["model"]) == (pair[0].alias, pair[0].alias)
    assert (other.headers["x-cortex-model"], other.json()["model"]) == (llama.alias, llama.alias)
    assert refused.status_code == 503
    first, second, third = await world.usage(3)
    assert (first.model_id, second.model_id) == (pair[0].model_id, llama.model_id)
    assert (second.model, second.replica_id, second.status) == (pair[0].alias, llama.replica_id, 200)
    assert (third.model_id, third.status) == (pair[0].model_id, 503)


async def events_of(response: httpx.Response) -> tuple[list[str], int]:
    """Data of an event stream, and how many comments came between."""
    data, comments = [], 0
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            data.append(line[6:])
        comments += line.startswith(":")
    return data, comments


async def test_a_client_cancels_its_own_request_at_any_gateway(world, pair, new_gateway):
    second = await asyncio.to_thread(new_gateway)
    secret = await serve_pair(world, pair, second)
    stranger = await world.add_key()
    await world.until_served(stranger, pair[0].alias)

    async def stream(http: httpx.AsyncClient, name: str) -> list[str]:
        body = {"model": pair[0].alias, **LONG, "stream": True}
        async with http.stream("POST", "/chat/completions", json=body, headers={"x-request-id": name}) as response:
            return (await events_of(response))[0]

    async with client(world.gateway.url, secret) as http, client(second.url, secret) as other:
        for name, where in (("here", http), ("elsewhere", other)):
            running = asyncio.create_task(stream(http, name))
            await asyncio.sleep(0.5)
            async with client(second.url, stranger) as strange:
                assert (await strange.post(f"/requests/{name}/cancel")).status_code == 404
            assert not running.done()
            began = time.monotonic()
            assert (await where.post(f"/requests/{name}/cancel")).status_code == 200
            data = await running
            print(f"cancelled {name} within {(time.monotonic() - began) * 1000:.0f} ms")  # noqa: T201
            assert data[-1] == "[DONE]"
            assert json.loads(data[-2])["error"]["code"] == "request_cancelled"
        whole = asyncio.create_task(
            http.post("/chat/completions", json={"model": pair[0].alias, **LONG}, headers={"x-request-id": "whole"})
        )
        await asyncio.sleep(0.3)
        assert (await http.delete("/requests/whole")).status_code == 200
        assert ((await whole).status_code, (await whole).json()["error"]["code"]) == (499, "request_cancelled")
        assert (await http.delete("/requests/whole")).status_code == 404
    records = await world.usage(3)
    assert {record.outcome for record in records} == {UsageOutcome.CLIENT_DISCONNECTED}
    assert all(record.completion_tokens > 0 for record in records if record.stream)


async def test_a_deadline_of_the_clients_own_is_kept(world, pair):
    secret = await serve_pair(world, pair)
    async with client(world.gateway.url, secret, **{"x-request-timeout-ms": "300"}) as http:
        began = time.monotonic()
        late = await http.post("/chat/completions", json={"model": pair[0].alias, **LONG})
        assert time.monotonic() - began < 5
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        body = {"model": pair[0].alias, **LONG, "stream": True}
        later = {"x-request-timeout-ms": "1500"}
        async with http.stream("POST", "/chat/completions", json=body, headers=later) as response:
            if response.status_code == 504:  # on a busy machine nothing has begun by then
                data = [(await response.aread()).decode(), "[DONE]"]
            else:
                data, _ = await events_of(response)
        assert (json.loads(data[-2])["error"]["code"], data[-1]) == ("deadline_exceeded", "[DONE]")
        bad = await http.post("/chat/completions", json={}, headers={"x-request-timeout-ms": "soon"})
        assert bad.status_code == 400


async def test_a_sleeping_model_is_demanded_waited_for_and_served(new_world, nats_url, pair):
    world = await new_world(nats_url, demand_ping_s="0.1")
    await world.bus.js.purge_stream("USAGE")
    llama = pair[0]
    demanded = await world.bus.nc.subscribe("model.demanded")
    await world.add_model(llama, lifecycle=Lifecycle.ON_DEMAND)
    secret = await world.add_key()
    await world.until_served(secret, llama.alias)
    async with client(world.gateway.url, secret) as http, world.client(secret) as official:

        async def stream() -> tuple[list[str], int]:
            body = {"model": llama.alias, **SHORT, "stream": True}
            async with http.stream("POST", "/chat/completions", json=body) as response:
                assert response.status_code == 200
                return await events_of(response)

        waiting = asyncio.create_task(stream())
        plain = asyncio.create_task(chat(http, llama.alias))
        typed = await official.chat.completions.create(model=llama.alias, stream=True, **SHORT)
        assert llama.model_id.encode() in (await demanded.next_msg(timeout=5)).data
        assert not waiting.done()
        assert not plain.done()
        await world.add_replica(llama, ReplicaState.STARTING)
        await asyncio.sleep(0.3)
        await world.add_replica(llama)
        await world.add_verdict(llama, Verdict.LOADING)
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await world.add_verdict(llama)
        data, comments = await waiting
        assert comments >= 1
        assert data[-1] == "[DONE]"
        assert (await plain).status_code == 200
        assert [chunk async for chunk in typed]
    assert [record.status for record in await world.usage(3)] == [200] * 3


async def test_a_sleeping_model_that_fails_says_why_in_a_stream_and_without(new_world, nats_url, pair):
    world = await new_world(nats_url, demand_ping_s="0.1")
    await world.bus.js.purge_stream("USAGE")
    llama = pair[0]
    await world.add_model(llama, lifecycle=Lifecycle.ON_DEMAND)
    await world.add_replica(llama, ReplicaState.STARTING)
    secret = await world.add_key()
    await world.until_served(secret, llama.alias)
    async with client(world.gateway.url, secret) as http, world.client(secret) as official:
        waiting = asyncio.create_task(chat(http, llama.alias))
        typed = await official.chat.completions.create(model=llama.alias, stream=True, **SHORT)
        await world.add_replica(llama, ReplicaState.FAILED, "no GPU has 40 GiB free")
        with pytest.raises(openai.APIError, match="no GPU has 40 GiB free"):
            assert [chunk async for chunk in typed]
        refused = await waiting
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_failed")
        assert "no GPU has 40 GiB free" in refused.json()["error"]["message"]
        began = time.monotonic()
        assert (await chat(http, llama.alias)).status_code == 503
        assert time.monotonic() - began < 3
    assert {record.status for record in await world.usage(3)} == {503}


async def test_a_conversation_stays_with_the_replica_that_has_its_prefix(world, pair):
    secret = await serve_pair(world, pair, routing_policy="prefix_affinity")
    messages = [{"role": "user", "content": "Tell me about the sea. " * 40}]
    cached: list[int] = []
    async with client(world.gateway.url, secret) as http:
        for turn in range(4):
            answer = (await chat(http, pair[0].alias, messages=messages, max_tokens=8)).json()
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
            messages += [answer["choices"][0]["message"], {"role": "user", "content": f"And then {turn}?"}]
        pinned = [await chat(http, pair[0].alias, messages=[{"role": "user", "content": str(n)}]) for n in range(3)]
    assert all(response.status_code == 200 for response in pinned)
    records = await world.usage(7)
    assert len({record.replica_id for record in records[:4]}) == 1
    assert all(one > 100 for one in cached[1:]), cached


async def test_a_session_is_pinned_at_every_gateway(world, pair, new_gateway):
    second = await asyncio.to_thread(new_gateway)
    secret = await serve_pair(world, pair, second)
    for session in ("anna", "bert", "cora", "dora"):
        for url in (world.gateway.url, second.url):
            async with client(url, secret, **{"x-session-id": session}) as http:
                for _ in range(2):
                    assert (await chat(http, pair[0].alias, max_tokens=1)).status_code == 200
    records = sorted(await world.usage(16), key=lambda record: record.started_at)
    assert all(len({one.replica_id for one in records[n : n + 4]}) == 1 for n in range(0, 16, 4))


async def test_a_frozen_replica_is_overtaken_by_a_hedge_and_usage_counts_once(new_world, nats_url, pair):
    world = await new_world(nats_url, hedge="fixed", hedge_after_s="0.3")
    await world.bus.js.purge_stream("USAGE")
    secret = await serve_pair(world, pair)
    frozen = pair[1]
    frozen.signal(signal.SIGSTOP)
    try:
        async with client(world.gateway.url, secret) as http:
            answers = [await chat(http, pair[0].alias) for _ in range(4)]
            metrics = (await http.get(f"{world.gateway.url}/metrics")).text
    finally:
        frozen.signal(signal.SIGCONT)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert 'gateway_hedges_total{outcome="won"}' in metrics
    records = await world.usage(4)
    assert {record.replica_id for record in records} == {pair[0].replica_id}
    await world.no_more_usage()


async def test_a_verdict_reaches_the_routing_tables_of_several_gateways(nats_url, pair):
    """How long that takes, from the write to the table of the last one, is printed."""
    buses = [Bus(SecretStr(nats_url), name="test") for _ in range(4)]
    writer = buses[0]
    tasks = [asyncio.create_task(bus.run()) for bus in buses]
    tables: list[Projection] = []
    try:
        for bus in buses[1:]:
            await bus.wait_connected()
            views = Views(
                KVView(bus, MODELS, ModelDocumentV1),
                KVView(bus, KEYS, KeyDocumentV1),
                KVView(bus, REPLICAS, ReplicaDocumentV1),
                KVView(bus, VERDICTS, VerdictDocumentV1),
            )
            table = Projection(views, EngineKeys(lambda one, other: "k", lambda sealed: None), SystemClock())
            tables.append(table)
            running = (table, views.models, views.keys, views.replicas, views.verdicts)
            tasks += [asyncio.create_task(one.run()) for one in running]
        async with asyncio.timeout(20):
            while not all(table.synced for table in tables):
                await asyncio.sleep(0.01)
        took: list[float] = []
        for number in range(20):
            wanted = Verdict.HEALTHY if number % 2 else Verdict.UNHEALTHY
            began = time.monotonic()
            changes = [asyncio.create_task(table.wait_change(10)) for table in tables]
            await asyncio.sleep(0)
            await KVStore[VerdictDocumentV1](writer, VERDICTS).put(pair[0].replica_id, verdict_of(pair[0], wanted))
            await asyncio.gather(*changes)
            took.append((time.monotonic() - began) * 1000)
        took.sort()
        print(f"verdict to 3 tables: p50 {took[10]:.1f} ms, best {took[0]:.1f}, worst {took[-1]:.1f}")  # noqa: T201
        assert took[0] < 5000
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def verdict_of(llama, verdict: Verdict) -> VerdictDocumentV1:
    return VerdictDocumentV1(
        aggregateversion=next_version(0),
        replica_id=llama.replica_id,
        model_id=llama.model_id,
        spec_hash="abc123",
        endpoint=llama.endpoint,
        verdict=verdict,
        since=datetime.now(UTC),
    )
