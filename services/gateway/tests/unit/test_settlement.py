"""Where a request ends: what is recorded of an answer that broke off."""

import asyncio
import json
from collections.abc import Callable

import pytest

from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.enums import UsageOutcome
from cortex_gateway.domain.auth import build_key_ring
from cortex_gateway.domain.requests import API_ROUTES
from cortex_gateway.domain.routing import Keys, Target, build_table
from cortex_gateway.domain.usage import Tokens
from cortex_gateway.settlement import Bookkeeper, Exchange
from cortex_kit.clock import SystemClock

BODY = b'{"model":"smol","messages":[{"role":"user","content":"Hello there, how are you?"}]}'


class Log:
    def __init__(self) -> None:
        self.final: list[dict] = []
        self.provisional: list[dict] = []

    def append(self, record: bytes) -> None:
        self.final.append(json.loads(record)["data"])

    def hold(self, record: bytes) -> Callable[[bytes], None]:
        self.provisional.append(json.loads(record)["data"])
        return self.append


class Counter:
    """Counts at the replicas that live."""

    def __init__(self, *living: str) -> None:
        self.living = living
        self.asked: list[str] = []

    async def count_prompt(self, target: Target, upstream_path: str, body: bytes) -> int | None:
        self.asked.append(target.replica_id)
        return 17 if target.replica_id in self.living else None


@pytest.fixture
def exchange(model, replica, verdict) -> Exchange:
    table = build_table(
        {"m1": model()},
        {f"m1-{n}": replica(ordinal=n) for n in range(3)},
        {f"m1-{n}": verdict(ordinal=n) for n in range(3)},
        Keys(lambda replica_id, spec_hash: "k", lambda sealed: None),
    )
    [route] = table.routes
    document = KeyDocumentV1.model_validate({"aggregateversion": 1, "id": "k1", "digest": "00" * 32, "name": "k"})
    clock = SystemClock()
    begun = Exchange(
        request_id="r1",
        correlation_id=None,
        api=API_ROUTES["/v1/chat/completions"],
        key=build_key_ring({"k1": document})[bytes(32)],
        model="smol",
        stream=True,
        started_at=clock.now(),
        started=clock.monotonic(),
    )
    begun.route, begun.target, begun.sent_body = route, route.targets[0], BODY
    return begun


async def broken_off(exchange: Exchange, counter: Counter) -> dict:
    log = Log()
    books = Bookkeeper(log, counter, SystemClock(), "cortex/gateway/test")
    running = asyncio.create_task(books.run())
    books.settle_interrupted(exchange, 200, UsageOutcome.UPSTREAM_ERROR, Tokens(completion=3, estimated=True))
    await books.drained()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    [record] = log.final
    assert len(log.provisional) == 1
    return record


async def test_the_prompt_is_counted_by_the_replica_that_had_it(exchange):
    counter = Counter("m1-0", "m1-1")
    assert (await broken_off(exchange, counter))["prompt_tokens"] == 17
    assert counter.asked == ["m1-0"]


async def test_the_prompt_of_a_replica_that_died_is_counted_by_another_of_its_model(exchange):
    counter = Counter("m1-1", "m1-2")
    record = await broken_off(exchange, counter)
    assert (record["prompt_tokens"], record["completion_tokens"], record["replica_id"]) == (17, 3, "m1-0")
    assert counter.asked == ["m1-0", "m1-1"]


async def test_a_prompt_that_nobody_can_count_is_estimated(exchange):
    counter = Counter()
    assert (await broken_off(exchange, counter))["prompt_tokens"] > 0
    assert counter.asked == ["m1-0", "m1-1"]
