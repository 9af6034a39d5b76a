"""The official client through a real gateway to a real llama-server; usage equals what the client was told."""

import asyncio

import httpx
import openai
import pytest

from cortex_contracts.enums import UsageOutcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
MESSAGES = [{"role": "user", "content": "Say hello."}]
TO_THE_END = {"ignore_eos": True}
"""A request of n tokens gets n tokens, whatever the small model would say."""


async def test_chat_answers_and_its_usage_is_recorded(world, llama):
    secret = await world.serve(llama)
    async with world.client(secret) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=llama.alias, messages=MESSAGES, max_tokens=8, extra_headers={"x-request-id": "my-id-1"}
        )
        answer = raw.parse()
    assert answer.choices[0].message.content
    assert raw.headers["x-request-id"] == "my-id-1"
    assert "server" not in raw.headers
    [record] = await world.usage(1)
    assert answer.usage is not None
    assert (record.prompt_tokens, record.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert (record.outcome, record.status, record.stream) == (UsageOutcome.COMPLETED, 200, False)
    assert record.model_id == llama.model_id
    assert record.replica_id == llama.replica_id
    assert record.request_id != "my-id-1"
    assert not record.estimated
    await world.no_more_usage()


async def test_a_stream_with_usage_reports_what_is_recorded(world, llama):
    secret = await world.serve(llama)
    async with world.client(secret) as client:
        stream = await client.chat.completions.create(
            model=llama.alias,
            messages=MESSAGES,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    told = chunks[-1].usage
    assert told is not None
    assert chunks[-1].choices == []
    [record] = await world.usage(1)
    assert (record.prompt_tokens, record.completion_tokens) == (told.prompt_tokens, told.completion_tokens)
    assert record.stream
    assert record.ttft_ms is not None
    assert record.ttft_ms <= record.duration_ms


async def test_a_stream_without_usage_shows_none_but_records_it(world, llama):
    secret = await world.serve(llama)
    async with world.client(secret) as client:
        stream = await client.chat.completions.create(
            model=llama.alias, messages=MESSAGES, max_tokens=8, stream=True, temperature=0, extra_body=TO_THE_END
        )
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    [record] = await world.usage(1)
    assert record.prompt_tokens > 0
    assert record.completion_tokens == sum(1 for chunk in chunks if chunk.choices[0].delta.content)


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_completions_stream_has_one_usage_chunk_or_none(world, llama, wants_usage):
    secret = await world.serve(llama)
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with world.client(secret) as client:
        stream = await client.completions.create(
            model=llama.alias,
            prompt=["hi", "hello there my friend"],
            max_tokens=3,
            n=2,
            stream=True,
            extra_body=TO_THE_END,
            **options,
        )
        chunks = [chunk async for chunk in stream]
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    [record] = await world.usage(1)
    assert len(told) == (1 if wants_usage else 0)
    assert record.completion_tokens == 12
    assert record.prompt_tokens == 5
    if told:
        assert (told[0].prompt_tokens, told[0].completion_tokens) == (5, 12)


async def test_several_chat_choices_are_summed(world, llama):
    secret = await world.serve(llama)
    async with world.client(secret) as client:
        stream = await client.chat.completions.create(
            model=llama.alias,
            messages=MESSAGES,
            max_tokens=3,
            n=2,
            extra_body=TO_THE_END,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    [record] = await world.usage(1)
    assert [usage.completion_tokens for usage in told] == [record.completion_tokens] == [6]
    assert told[0].prompt_tokens == record.prompt_tokens


async def test_an_alias_and_defaults_reach_the_engine(world, llama):
    secret = await world.serve(llama, aliases=("gpt-nice",), request_defaults={"max_tokens": 3})
    async with world.client(secret) as client:
        answer = await client.chat.completions.create(model="gpt-nice", messages=MESSAGES, extra_body=TO_THE_END)
        explicit = await client.chat.completions.create(
            model="gpt-nice", messages=MESSAGES, max_tokens=5, extra_body=TO_THE_END
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert explicit.usage is not None
    assert explicit.usage.completion_tokens == 5
    first, second = await world.usage(2)
    assert {first.model, second.model} == {"gpt-nice"}


async def test_refusals_have_the_shape_and_code_that_clients_expect(world, llama):
    secret = await world.serve(llama)
    async with world.client("sk-wrong-key-0123456789") as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES)
    assert wrong.value.code == "invalid_api_key"
    assert "sk-w***6789" in wrong.value.message
    async with world.client(secret) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="nope", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError) as task:
            await client.embeddings.create(model=llama.alias, input="hi")
        with pytest.raises(openai.BadRequestError) as overflow:
            await client.chat.completions.create(
                model=llama.alias, messages=[{"role": "user", "content": "word " * 4000}]
            )
    assert unknown.value.code == "model_not_found"
    assert task.value.code == "model_task_mismatch"
    assert overflow.value.code == "context_length_exceeded"
    assert overflow.value.response.headers["x-cortex-error-origin"] == "engine"
    records = await world.usage(3)
    assert [record.outcome for record in records] == [UsageOutcome.REJECTED] * 3
    assert [record.status for record in records] == [404, 400, 400]
    assert records[0].model_id is None
    await world.no_more_usage()


async def test_plain_http_refusals(world, llama):
    secret = await world.serve(llama)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=world.gateway.url, timeout=10) as http:
        cases = [
            (await http.post("/v1/chat/completions", json={}), 401, "invalid_api_key"),
            (await http.post("/v1/chat/completions", content="{bad", headers=headers), 400, "invalid_json"),
            (await http.post("/v1/chat/completions", json={"model": 3}, headers=headers), 400, "invalid_value"),
            (await http.get("/v1/chat/completions", headers=headers), 405, "method_not_allowed"),
            (await http.get("/v1/nothing", headers=headers), 404, "unknown_url"),
            (await http.get("/v1/nothing"), 401, "invalid_api_key"),
            (await http.get("/elsewhere"), 404, "unknown_url"),
            (await http.post("/v1/completions", content=b"x" * (33 << 20), headers=headers), 413, "request_too_large"),
        ]
        for response, status, code in cases:
            assert response.status_code == status
            assert response.json()["error"]["code"] == code
            assert response.headers["x-cortex-error-origin"] == "gateway"
            assert len(response.headers["x-request-id"]) == 36
        metrics = (await http.get("/metrics")).text
    assert 'gateway_requests_total{route="/v1/chat/completions",status="401"} 1.0' in metrics
    assert secret not in metrics


async def test_models_lists_what_the_key_may_use(world, llama):
    secret = await world.serve(llama)
    other = await world.add_key(models=("something-else",))
    await asyncio.sleep(0.2)
    async with world.client(secret) as client:
        listed = {model.id: model for model in (await client.models.list()).data}
    assert listed[llama.alias].owned_by == "cortex"
    assert listed[llama.alias].created > 1_700_000_000
    async with world.client(other) as client:
        assert (await client.models.list()).data == []
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model=llama.alias, messages=MESSAGES)
