"""The direct path: engines that fail, clients that leave, are slow or cancel, when everything else is there already."""

import asyncio
import contextlib
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from cortex_contracts.enums import UsageOutcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
MESSAGES = [{"role": "user", "content": "Hello."}]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
Send = Callable[[bytes], None]


def whole(body: object, status: bytes = b"200 OK") -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data)


def chunk(event: object) -> bytes:
    data = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


GOOD = whole({"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}], "usage": USAGE})
STREAMED = HEAD + chunk(TEXT) + chunk({"choices": [], "usage": USAGE}) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.fixture
async def engine(llama) -> AsyncIterator[type]:
    """A replica that keeps connections, and answers each request with the next of `answers` (then with the good one)."""

    class Engine:
        alias = f"fake-{llama.alias}"
        model_id = llama.model_id
        replica_id = llama.replica_id
        endpoint = ""
        answers: list[bytes | None] = []  # noqa: RUF012 - one fixture, one engine
        left = 0

    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                if b" /v1/" not in head:
                    writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
                    continue
                answer = Engine.answers.pop(0) if Engine.answers else GOOD
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if answer not in (GOOD, STREAMED) and not answer.startswith(HEAD + chunk(TEXT)):
                    break
                if answer.startswith(HEAD) and not answer.endswith(b"0\r\n\r\n"):
                    Engine.left += not await reader.read(1)
                    break
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    Engine.endpoint = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield Engine
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def http(world, engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose first request has opened the connection to the engine and taken its part of the limits."""
    secret = await world.serve(engine)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=f"{world.gateway.url}/v1", headers=headers, timeout=20) as made:
        assert (await ask(made, engine)).status_code == 200
        await world.usage(1)
        yield made


async def ask(http: httpx.AsyncClient, engine, **fields: object) -> httpx.Response:
    return await http.post("/chat/completions", json={"model": engine.alias, "messages": MESSAGES, **fields})


async def direct(world) -> float:
    """How many requests went the direct way so far."""
    url = f"{world.gateway.url}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
    found = re.search(r"^gateway_direct_requests_total (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_answers_and_streams_go_the_direct_way_and_are_settled(world, engine, http):
    before = await direct(world)
    engine.answers = [GOOD, STREAMED]
    answer = await ask(http, engine)
    assert (answer.status_code, answer.json()["usage"]) == (200, USAGE)
    assert answer.headers["x-cortex-model"] == engine.alias
    streamed = await ask(http, engine, stream=True)
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in streamed.text
    assert await direct(world) == before + 2
    records = await world.usage(2)
    assert [(record.prompt_tokens, record.completion_tokens) for record in records] == [(5, 2)] * 2
    assert [record.stream for record in records] == [False, True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (whole({"error": "Unauthorized"}, b"401 No"), 502, "engine_auth_failed"),
        (whole({"error": {"message": "boom", "code": 500}}, b"500 No"), 500, None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", 502, "engine_connection_lost"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", 502, "engine_answer_invalid"),
        (b"not http at all", 502, "engine_connection_lost"),
        (HEAD + b"zz\r\n", 502, "engine_connection_lost"),
    ],
)
async def test_a_failure_before_the_first_byte_is_told_once(world, engine, http, answer, status, code, stream):
    engine.answers = [answer]
    failed = await ask(http, engine, stream=stream)
    assert (failed.status_code, failed.json()["error"]["code"]) == (status, code)
    record = (await world.usage(1))[-1]
    assert (record.outcome, record.status) == (UsageOutcome.UPSTREAM_ERROR, status)
    assert (await ask(http, engine)).status_code == 200


async def test_a_connection_that_was_closed_meanwhile_costs_the_client_nothing(world, engine, http):
    engine.answers = [None, GOOD]
    assert (await ask(http, engine)).status_code == 200
    assert [record.outcome for record in await world.usage(1)] == [UsageOutcome.COMPLETED]


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (chunk({"error": {"message": "boom", "type": "x", "code": 500}}) + b"0\r\n\r\n", "engine_error"),
        (b"0\r\n\r\n", "engine_connection_lost"),
    ],
)
async def test_a_stream_that_breaks_ends_with_one_error(world, engine, http, ending, code):
    engine.answers = [HEAD + chunk(TEXT) + chunk(TEXT) + ending]
    response = await ask(http, engine, stream=True)
    events = [line[6:] for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == code
    record = (await world.usage(1))[-1]
    assert (record.outcome, record.estimated) == (UsageOutcome.UPSTREAM_ERROR, True)


async def test_a_client_that_leaves_frees_the_engine(world, engine, http):
    engine.answers = [HEAD + chunk(TEXT)]
    request = {"model": engine.alias, "messages": MESSAGES, "stream": True}
    async with http.stream("POST", "/chat/completions", json=request) as response:
        async for line in response.aiter_lines():
            assert line.startswith("data: ")
            break
    record = (await world.usage(1))[-1]
    assert record.outcome is UsageOutcome.CLIENT_DISCONNECTED
    async with asyncio.timeout(10):
        while not engine.left:
            await asyncio.sleep(0.01)


async def test_a_stream_is_ended_from_outside_by_its_id(world, engine, http):
    engine.answers = [HEAD + chunk(TEXT)]
    request = {"model": engine.alias, "messages": MESSAGES, "stream": True}
    async with http.stream("POST", "/chat/completions", json=request, headers={"x-request-id": "mine"}) as response:
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        assert (await http.post("/requests/mine/cancel")).status_code == 200
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2][6:])["error"]["code"] == "request_cancelled"
    assert (await world.usage(1))[-1].outcome is UsageOutcome.CLIENT_DISCONNECTED


async def test_a_slow_client_gets_everything(world, engine, http):
    event = chunk({"choices": [{"index": 0, "delta": {"content": "x" * 1000}}]})
    engine.answers = [HEAD + chunk(TEXT) + event * 20_000 + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]
    request = {"model": engine.alias, "messages": MESSAGES, "stream": True}
    size = 0
    async with http.stream("POST", "/chat/completions", json=request) as response:
        await asyncio.sleep(0.5)
        async for part in response.aiter_bytes():
            size += len(part)
    assert size > 20_000 * 1000
    assert (await world.usage(1))[-1].outcome is UsageOutcome.COMPLETED
