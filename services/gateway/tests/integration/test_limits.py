"""Limits of a key across gateways that are processes, on a real NATS."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts import subjects
from cortex_contracts.base import KeyId
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.streams import LIMITS
from cortex_gateway.adapters.counters import JetStreamCounters
from cortex_gateway.domain.auth import ApiKey, build_key_ring
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.limits import Need
from cortex_gateway.limiter import Limiter, LimiterRules
from cortex_gateway.permits import Permit
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.ids import uuid7
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
WORKER = Path(__file__).with_name("limit_worker.py")


def new_key(**fields: object) -> KeyDocumentV1:
    return KeyDocumentV1.model_validate(
        {"aggregateversion": 1, "id": KeyId(uuid7()), "digest": "00" * 32, "name": "k"} | fields
    )


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(url), name="test")
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(20):
        await bus.wait_connected()
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def hammer(url: str, document: KeyDocumentV1, *, seconds: float) -> list[dict[str, float]]:
    """Four processes with fifty clients each."""
    pipe = asyncio.subprocess.PIPE
    arguments = [WORKER, url, str(seconds), "50", document.model_dump_json()]
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe) for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            while await worker.stdout.readline() != b"ready\n":
                pass
    outputs = await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


async def test_four_gateways_with_two_hundred_clients_grant_the_limit_and_no_more(nats_url):
    async with connected(nats_url) as bus:
        await provision(bus.js)
        document = new_key(requests_per_minute=1000)
        results = await hammer(nats_url, document, seconds=4)
        granted = sum(result["granted"] for result in results)
        assert 950 <= granted <= 1000
        assert sum(result["refused"] for result in results) > 1000
        assert await JetStreamCounters(bus).last(subjects.request_counter(document.id)) == granted


async def test_the_tokens_that_were_used_are_what_the_counters_say(nats_url):
    async with connected(nats_url) as bus:
        await provision(bus.js)
        document = new_key(tokens_per_minute=40_000, tokens_per_month=10**9)
        results = await hammer(nats_url, document, seconds=3)
        granted = sum(result["granted"] for result in results)
        # 266 are reserved each time, 100 used: what is left below 266 is the last that nobody gets.
        assert 380 <= granted <= 400
        counters, month = JetStreamCounters(bus), SystemClock().now().strftime("%Y%m")
        assert await counters.last(subjects.token_counter(document.id)) == granted * 100
        assert await counters.last(subjects.budget_counter(document.id, month)) == granted * 100


@asynccontextmanager
async def limiters(url: str, count: int) -> AsyncIterator[list[Limiter]]:
    tasks: list[asyncio.Task[None]] = []
    made: list[Limiter] = []
    for number in range(count):
        bus = Bus(SecretStr(url), name="test")
        limiter = Limiter(JetStreamCounters(bus), SystemClock(), LimiterRules(), f"{uuid7()}-{number}")
        bus.on_reconnect(limiter.on_reconnect)
        tasks += [asyncio.create_task(bus.run()), asyncio.create_task(limiter.run())]
        async with asyncio.timeout(20):
            await bus.wait_connected()
        made.append(limiter)
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(limiter: Limiter, key: ApiKey, *, stream: bool = False) -> Permit | ApiError:
    try:
        return await limiter.admit(key, Need(2), stream=stream)
    except ApiError as error:
        return error


async def permits(gateways: list[Limiter], key: ApiKey, each: int) -> int:
    answers = await asyncio.gather(*(ask(limiter, key) for _ in range(each) for limiter in gateways))
    return sum(isinstance(answer, Permit) for answer in answers)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


async def test_nats_killed_and_back_with_nothing_grants_no_limit_twice_and_never_hangs(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cortex_gateway.shares.GRACE_S", 2.0)
    [key] = build_key_ring({"k": new_key(requests_per_minute=200)}).values()
    async with connected(nats_server.url) as bus, limiters(nats_server.url, 2) as gateways:
        await provision(bus.js)
        await until(lambda: not any(limiter._local for limiter in gateways))
        for limiter in gateways:
            limiter._gateways = 2
        before = await permits(gateways, key, 20)
        assert before == 40
        nats_server.kill()
        nats_server.wipe()
        async with asyncio.timeout(10):
            alone = await permits(gateways, key, 200)
        # Each grants its half of the limit, less what it granted before.
        assert 120 <= alone <= 160
        await until(lambda: all(limiter._local for limiter in gateways))
        nats_server.start()
        await until(lambda: bus.connected)
        await provision(bus.js)
        await until(lambda: not any(limiter._local for limiter in gateways))
        await asyncio.sleep(2.5)
        assert before + alone + await permits(gateways, key, 200) <= 200
        assert await JetStreamCounters(bus).last(subjects.request_counter(key.document.id)) is not None


async def test_streams_end_with_the_gateway_that_died(nats_url, monkeypatch):
    monkeypatch.setattr("cortex_gateway.stream_share.EPOCH_S", 2)
    monkeypatch.setattr("cortex_gateway.stream_share.OVERLAP_S", 1.5)
    [key] = build_key_ring({"k": new_key(max_concurrent_streams=3)}).values()
    async with connected(nats_url) as bus:
        await provision(bus.js)
        async with limiters(nats_url, 1) as living:
            async with limiters(nats_url, 1) as dying:
                assert isinstance(await ask(living[0], key, stream=True), Permit)
                assert isinstance(await ask(dying[0], key, stream=True), Permit)
                assert isinstance(await ask(dying[0], key, stream=True), Permit)
                assert isinstance(await ask(living[0], key, stream=True), ApiError)
            await asyncio.sleep(5)
            assert isinstance(await ask(living[0], key, stream=True), Permit)
            assert isinstance(await ask(living[0], key, stream=True), Permit)
            assert isinstance(await ask(living[0], key, stream=True), ApiError)


async def test_counters_of_a_minute_are_kept_in_memory_and_budgets_on_disk(nats_url):
    async with connected(nats_url) as bus:
        await provision(bus.js)
        await provision(bus.js)
        assert (await bus.js.stream_info(LIMITS)).config.storage == "memory"
        assert (await bus.js.stream_info("BUDGETS")).config.storage == "file"
        counters = JetStreamCounters(bus)
        subject = subjects.budget_counter(KeyId(uuid7()), "202611")
        assert await counters.last(subject) is None
        assert await counters.add(subject, 7, "a") == 7
        assert await counters.add(subject, 7, "a") == 7
        assert await counters.add(subject, -2) == 5
