"""Engines that fail in the middle of an answer, played by a raw socket server."""

import asyncio
import contextlib
import json
from typing import ClassVar

import httpx
import openai
import pytest

from cortex_contracts.enums import UsageOutcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
MESSAGES = [{"role": "user", "content": "Hello."}]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}}]}


def chunk(event: object) -> bytes:
    data = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
async def engine(llama):
    """A replica whose answer the test sets; it takes the llama's identity so that the World can announce it."""

    class Engine:
        alias = f"fake-{llama.alias}"
        model_id = llama.model_id
        replica_id = llama.replica_id
        endpoint = ""
        answer = b""
        seen: ClassVar[list[bytes]] = []

    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            Engine.seen.append(head)
            writer.write(Engine.answer if b" /v1/" in head else b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    Engine.endpoint = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield Engine
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (chunk({"error": {"message": "boom", "type": "x", "code": 500}}) + b"0\r\n\r\n", "engine_error"),
        (b"", "engine_connection_lost"),
        (b"0\r\n\r\n", "engine_connection_lost"),
    ],
)
async def test_a_stream_that_breaks_ends_with_one_error_and_is_no_success(world, engine, ending, code):
    secret = await world.serve(engine)
    engine.answer = HEAD + chunk(ROLE) + chunk(TEXT) + chunk(TEXT) + ending
    async with httpx.AsyncClient(base_url=world.gateway.url, timeout=10) as http:
        response = await http.post(
            "/v1/chat/completions",
            json={"model": engine.alias, "messages": MESSAGES, "stream": True},
            headers={"authorization": f"Bearer {secret}", "cookie": "c=1"},
        )
    events = [line[6:] for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == code
    assert sum(1 for event in events if '"error"' in event) == 1
    [record] = await world.usage(1)
    assert (record.outcome, record.estimated, record.completion_tokens) == (UsageOutcome.UPSTREAM_ERROR, True, 2)
    assert secret.encode() not in b"".join(engine.seen)
    assert b"cookie" not in b"".join(engine.seen)


async def test_several_choices_that_break_off_before_anything_was_sent_cost_nothing(world, engine):
    secret = await world.serve(engine)
    engine.answer = HEAD + chunk(ROLE) + chunk(TEXT) + chunk(TEXT)
    async with world.client(secret) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model=engine.alias, messages=MESSAGES, n=2)
    assert (failed.value.status_code, failed.value.code) == (502, "engine_connection_lost")
    [record] = await world.usage(1)
    assert (record.status, record.outcome) == (502, UsageOutcome.UPSTREAM_ERROR)
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (0, 0, False)


async def test_the_official_client_raises_on_a_broken_stream(world, engine):
    secret = await world.serve(engine)
    engine.answer = HEAD + chunk(ROLE) + chunk(TEXT)
    async with world.client(secret) as client:
        stream = await client.chat.completions.create(model=engine.alias, messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="connection to the engine broke"):
            async for _ in stream:
                pass
    await world.usage(1)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b'HTTP/1.1 401 No\r\ncontent-length: 24\r\n\r\n{"error":"Unauthorized"}', 502, "engine_auth_failed"),
        (HEAD + chunk({"error": {"message": "boom", "code": 500}}) + b"0\r\n\r\n", 500, "engine_error"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", 502, "engine_connection_lost"),
        (b"not http at all", 502, "engine_connection_lost"),
        (HEAD + chunk(ROLE) + b"zz\r\n", 502, "engine_connection_lost"),
    ],
)
async def test_a_failure_before_the_first_byte_is_an_http_error(world, engine, answer, status, code):
    secret = await world.serve(engine)
    engine.answer = answer
    async with world.client(secret) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model=engine.alias, messages=MESSAGES, stream=True)
    assert (failed.value.status_code, failed.value.code) == (status, code)
    [record] = await world.usage(1)
    assert record.outcome is UsageOutcome.UPSTREAM_ERROR
