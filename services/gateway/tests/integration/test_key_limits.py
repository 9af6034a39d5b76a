"""Limits of a key as a client meets them."""

import asyncio
import hashlib

import httpx
import openai
import pytest

from cortex_contracts import subjects
from cortex_contracts.base import KeyId
from cortex_contracts.enums import UsageOutcome
from cortex_contracts.streams import KEYS
from cortex_gateway.adapters.counters import JetStreamCounters
from cortex_kit.clock import next_version
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
TOO_LONG = [{"role": "user", "content": "river " * 3000}]
MESSAGES = [{"role": "user", "content": "Write a long story."}]


async def limited(world, llama, **limits: int) -> tuple[KeyId, str]:
    key_id = KeyId(uuid7())
    secret = await world.add_key(id=key_id, **limits)
    await world.until_served(secret, llama.alias)
    return key_id, secret


async def until_counter(world, subject: str, value: int) -> None:
    counters = JetStreamCounters(world.bus)
    last = None
    try:
        async with asyncio.timeout(15):
            while last != value:
                await asyncio.sleep(0.1)
                last = await counters.last(subject)
    except TimeoutError:
        assert last == value


async def test_requests_beyond_the_limit_get_openai_s_429_and_every_answer_says_where_one_stands(world, llama):
    await world.serve(llama)
    _, secret = await limited(world, llama, requests_per_minute=3, tokens_per_minute=100_000)
    remaining: list[str] = []
    async with world.client(secret) as client:
        for stream in (False, True):
            answer = await client.chat.completions.with_raw_response.create(
                model=llama.alias, messages=MESSAGES, max_tokens=2, stream=stream
            )
            assert answer.headers["x-ratelimit-limit-requests"] == "3"
            assert answer.headers["x-ratelimit-limit-tokens"] == "100000"
            assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 100_000
            assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
            remaining.append(answer.headers["x-ratelimit-remaining-requests"])
            if stream:
                async for _ in answer.parse():
                    pass
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model=llama.alias, messages=TOO_LONG, max_tokens=2)
        remaining.append(bad.value.response.headers["x-ratelimit-remaining-requests"])
        assert remaining == ["2", "1", "0"]
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=2)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.type == "requests"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    records = await world.usage(4)
    assert sorted(record.status for record in records) == [200, 200, 400, 429]


async def test_what_counts_is_what_was_used_after_answers_errors_and_hang_ups(world, llama):
    await world.serve(llama)
    key_id, secret = await limited(world, llama, tokens_per_minute=10_000, tokens_per_month=100_000)
    async with world.client(secret) as client:
        await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=5)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=llama.alias, messages=TOO_LONG, max_tokens=5)
        stream = await client.chat.completions.create(
            model=llama.alias, messages=MESSAGES, max_tokens=500, stream=True, extra_body={"ignore_eos": True}
        )
        async for _ in stream:
            break
        await stream.close()
    records = await world.usage(3)
    assert {record.outcome for record in records} >= {UsageOutcome.COMPLETED, UsageOutcome.CLIENT_DISCONNECTED}
    used = sum(record.prompt_tokens + record.completion_tokens for record in records)
    assert used > 20
    await until_counter(world, subjects.token_counter(key_id), used)
    await until_counter(world, subjects.budget_counter(key_id, records[0].started_at.strftime("%Y%m")), used)


async def test_a_spent_budget_is_insufficient_quota(world, llama):
    await world.serve(llama)
    _, secret = await limited(world, llama, tokens_per_month=60)
    async with world.client(secret) as client:
        await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=20)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=50)
    assert refused.value.code == "insufficient_quota"
    assert refused.value.type == "insufficient_quota"


async def test_streams_at_one_time_are_limited_and_a_hang_up_frees_its_place(world, llama):
    await world.serve(llama)
    _, secret = await limited(world, llama, max_concurrent_streams=1)

    async def stream(client: openai.AsyncOpenAI):
        return await client.chat.completions.create(
            model=llama.alias, messages=MESSAGES, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )

    async with world.client(secret) as client:
        first = await stream(client)
        await anext(aiter(first))
        with pytest.raises(openai.RateLimitError) as refused:
            await stream(client)
        assert refused.value.code == "rate_limit_exceeded"
        await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=1)
        await first.close()
        async with asyncio.timeout(10):
            while True:
                try:
                    second = await stream(client)
                except openai.RateLimitError:
                    await asyncio.sleep(0.1)
                else:
                    break
        await second.close()


async def test_a_changed_or_revoked_key_counts_at_once(world, llama):
    await world.serve(llama)
    key_id, secret = await limited(world, llama, requests_per_minute=1)
    store = KVStore(world.bus, KEYS)
    async with world.client(secret) as client:

        async def ask() -> None:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES, max_tokens=1)

        await ask()
        with pytest.raises(openai.RateLimitError):
            await ask()
        await world.add_key(
            id=key_id, digest=hashlib.sha256(secret.encode()).hexdigest(), aggregateversion=next_version(0)
        )
        await asyncio.sleep(0.3)
        for _ in range(3):
            await ask()
        await store.delete(key_id)
        await asyncio.sleep(0.3)
        with pytest.raises(openai.AuthenticationError):
            await ask()


async def test_a_key_without_limits_gets_no_such_headers(world, llama):
    secret = await world.serve(llama)
    async with httpx.AsyncClient(base_url=world.gateway.url) as http:
        answer = await http.post(
            "/v1/chat/completions",
            json={"model": llama.alias, "messages": MESSAGES, "max_tokens": 1},
            headers={"authorization": f"Bearer {secret}"},
            timeout=30,
        )
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
