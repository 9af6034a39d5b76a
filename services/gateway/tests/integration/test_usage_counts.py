"""What is recorded equals what clients were told, on every route and however they end; hostile bodies end at once."""

import json
import time

import httpx
import pytest

from cortex_contracts.enums import UsageOutcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
CHAT = [{"role": "user", "content": "Write a very long story about a river."}]
QUIET = {"ignore_eos": True}


def client_of(world, secret) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.AsyncClient(base_url=world.gateway.url, headers=headers, timeout=60)


COMPLETION = ("prompt_tokens", "completion_tokens")
RESPONSE = ("input_tokens", "output_tokens")
WHOLE = (
    ("/v1/chat/completions", {"messages": CHAT, "n": 2, "max_tokens": 4}, COMPLETION),
    ("/v1/completions", {"prompt": ["a b c", "d"], "n": 2, "max_tokens": 4}, COMPLETION),
    ("/v1/completions", {"prompt": [[1, 2, 3], [4]], "max_tokens": 4}, COMPLETION),
    ("/v1/responses", {"input": "Hello.", "max_output_tokens": 4}, RESPONSE),
    ("/v1/messages", {"messages": CHAT, "max_tokens": 4}, RESPONSE),
)
LONG = (
    ("/v1/chat/completions", {"messages": CHAT, "max_tokens": 800}),
    ("/v1/completions", {"prompt": ["A river is long", "The sea"], "max_tokens": 400}),
    ("/v1/responses", {"input": "Write a story.", "max_output_tokens": 800}),
    ("/v1/messages", {"messages": CHAT, "max_tokens": 800}),
)


async def test_a_whole_answers_usage_is_recorded_as_told(world, llama):
    secret = await world.serve(llama)
    for path, body, told in WHOLE:
        async with client_of(world, secret) as http:
            answer = (await http.post(path, json={"model": llama.alias, **QUIET, **body})).json()
        [record] = await world.usage(1)
        usage = answer["usage"]
        assert record.completion_tokens == usage[told[1]] == 4 * len(answer.get("choices", "1"))
        assert record.prompt_tokens == usage[told[0]] + usage.get("cache_read_input_tokens", 0)
        assert (record.outcome, record.status, record.stream, record.route) == (
            UsageOutcome.COMPLETED,
            200,
            False,
            path,
        )
        assert not record.estimated
    await world.no_more_usage()


async def test_a_streams_usage_is_recorded(world, llama):
    secret = await world.serve(llama)
    for path, body, _ in WHOLE[3:]:
        async with client_of(world, secret) as http:
            text = (await http.post(path, json={"model": llama.alias, "stream": True, **QUIET, **body})).text
        [record] = await world.usage(1)
        assert (record.completion_tokens, record.outcome, record.stream) == (4, UsageOutcome.COMPLETED, True)
        assert record.prompt_tokens > 5
        assert "[DONE]" not in text
    await world.no_more_usage()


async def test_a_client_that_leaves_is_charged_for_what_it_got(world, llama):
    secret = await world.serve(llama)
    for path, body in LONG:
        asked = {"model": llama.alias, **QUIET, **body}
        got = 0
        async with client_of(world, secret) as http:
            one = {name: 1 if name.startswith("max_") else value for name, value in asked.items()}
            whole = (await http.post(path, json=one)).json()["usage"]
            async with http.stream("POST", path, json=asked | {"stream": True}) as stream:
                async for line in stream.aiter_lines():
                    got += '"delta":' in line or '"text":"' in line
                    if got == 12:
                        break
        _, record = await world.usage(2)
        prompt = whole.get("prompt_tokens", whole.get("input_tokens", 0)) + whole.get("cache_read_input_tokens", 0)
        assert (record.outcome, record.estimated) == (UsageOutcome.CLIENT_DISCONNECTED, True), path
        assert record.prompt_tokens == prompt, path
        assert got - 3 <= record.completion_tokens <= got + 40, path


async def test_hostile_bodies_end_at_once(world, llama):
    secret = await world.serve(llama)
    deep = f'{{"model":"{llama.alias}","x":{"[" * 200_000}{"]" * 200_000},"messages":[]}}'.encode()
    shallow = f'{{"model":"{llama.alias}","max_tokens":1,"x":{"[" * 300}{"]" * 300},"messages":[{{}}]}}'.encode()
    many = json.dumps({"model": llama.alias, "messages": [{"role": "user", "content": "x"}] * 100_000}).encode()
    twice = f'{{"model":"{llama.alias}","model":"{llama.alias}","messages":[]}}'.encode()
    async with client_of(world, secret) as http:
        for body, codes in (
            (deep, {"invalid_json"}),
            (twice, {"invalid_value"}),
            (b'{"model":"\xff"}', {"invalid_json"}),
            (b'{"model":"m","n":1e999}', {"invalid_value"}),
            (many, {"invalid_value"}),
            (shallow, {None, "invalid_value"}),
        ):
            began = time.monotonic()
            refused = await http.post("/v1/chat/completions", content=body)
            assert 400 <= refused.status_code < 500, refused.text[:300]
            assert refused.json()["error"]["code"] in codes
            assert time.monotonic() - began < 20
        alive = await http.post("/v1/chat/completions", json={"model": llama.alias, "messages": CHAT, "max_tokens": 1})
    assert alive.status_code == 200


async def test_what_the_engine_cannot_do_is_a_400_that_names_it(world, llama):
    secret = await world.serve(llama, llamacpp={"context_size": 2048, "parallel_slots": 2})
    async with client_of(world, secret) as http:
        many = await http.post("/v1/chat/completions", json={"model": llama.alias, "messages": CHAT, "n": 5})
        echo = {"model": llama.alias, "prompt": "x", "echo": True, "logprobs": 1}
        echoed = await http.post("/v1/completions", json=echo)
    for refused, param in ((many, "n"), (echoed, "echo")):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "not_supported_by_model", param)
        assert "llama.cpp" in error["message"]


async def test_a_gateway_can_limit_what_has_no_limit(new_world, nats_url, llama):
    world = await new_world(nats_url, default_max_tokens="3")
    secret = await world.serve(llama)
    async with client_of(world, secret) as http:
        answer = (
            await http.post("/v1/chat/completions", json={"model": llama.alias, "messages": CHAT, **QUIET})
        ).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"
