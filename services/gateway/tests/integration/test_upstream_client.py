"""The upstream client against real sockets that behave badly."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cortex_gateway.adapters.upstream_client import PooledUpstreamClient
from cortex_gateway.domain.routing import Endpoint, parse_endpoint
from cortex_gateway.ports import Failure, UpstreamError, UpstreamRequest
from cortex_testing.certificates import self_signed

pytestmark = pytest.mark.integration

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[Endpoint]:
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(run, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    endpoint = parse_endpoint(f"http://127.0.0.1:{port}", "key")
    assert endpoint is not None
    async with listener:
        yield endpoint
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(length)


def answering(answer: bytes, *, then_close: bool = True) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
            if then_close:
                return

    return handle


REQUEST = UpstreamRequest("/v1/x", b'{"a":1}', first_byte_timeout_s=5, idle_timeout_s=5)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def new_client() -> PooledUpstreamClient:
    return PooledUpstreamClient(connect_timeout_s=1)


async def test_a_connection_is_reused_and_carries_our_headers():
    seen: list[bytes] = []
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    async with server(handle) as endpoint:
        client = new_client()
        for _ in range(3):
            response = await client.post(endpoint, REQUEST)
            assert await response.read_all(10) == b"ok"
            response.close()
        assert connections == 1
        assert seen[0].startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert b"authorization: Bearer key\r\n" in seen[0]
        assert seen[0].endswith(b'\r\n\r\n{"a":1}')
        client.close()


async def test_a_pooled_connection_that_died_is_replaced_without_the_caller_noticing():
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(OK)
        if connections == 1:
            await read_request(reader)

    async with server(handle) as endpoint:
        client = new_client()
        for _ in range(2):
            response = await client.post(endpoint, REQUEST)
            assert await response.read_all(10) == b"ok"
            response.close()
        assert connections == 2
        client.close()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", Failure.NO_ANSWER),
        (b"garbage\r\n\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, Failure.BROKEN),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"a" * 100, Failure.BROKEN),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Failure.BROKEN,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nx-one: a\r\n b\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nx-one: a\rset-cookie: b\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nx-one: a\nset-cookie: b\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\nx-one: \0\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n", Failure.BROKEN),
        (b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok", Failure.BROKEN),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, Failure.BROKEN),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", Failure.BROKEN),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 1000 + b"\r\na\r\n0\r\n\r\n",
            Failure.BROKEN,
        ),
        (b"\x16\x03\x01\x00\x01\x02", Failure.BROKEN),
    ],
)
async def test_bad_answers_are_named(answer, failure):
    async with server(answering(answer)) as endpoint:
        client = new_client()

        async def exchange() -> bytes:
            response = await client.post(endpoint, REQUEST)
            try:
                return await response.read_all(50)
            finally:
                response.close()

        with pytest.raises(UpstreamError) as broken:
            await exchange()
        assert broken.value.failure is failure
        client.close()


@pytest.mark.parametrize("more", [OK, b"x", b"\r\n"])
async def test_a_connection_on_which_an_engine_says_too_much_is_not_used_again(more):
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(OK + more)

    async with server(handle) as endpoint:
        client = new_client()
        for _ in range(3):
            response = await client.post(endpoint, REQUEST)
            assert await response.read_all(10) == b"ok"
            response.close()
        assert connections == 3
        client.close()


async def test_an_answer_that_comes_while_nobody_asks_ends_the_connection():
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(OK)
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    async with server(handle) as endpoint:
        client = new_client()
        for _ in range(2):
            response = await client.post(endpoint, REQUEST)
            assert await response.read_all(10) == b"ok"
            response.close()
            await asyncio.sleep(0.1)
        assert connections == 2
        client.close()


async def test_an_answer_of_which_only_a_part_was_read_leaves_nothing_to_the_next_request():
    async with server(answering(OK, then_close=False)) as endpoint:
        client = new_client()
        response = await client.post(endpoint, REQUEST)
        response.close()
        response = await client.post(endpoint, REQUEST)
        assert await response.read_all(10) == b"ok"
        response.close()
        client.close()


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_an_answer_may_come_in_any_pieces(size):
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;e=1\r\no\r\n1\r\nk\r\n0\r\nx: y\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for start in range(0, len(answer), size):
            writer.write(answer[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with server(handle) as endpoint:
        client = new_client()
        response = await client.post(endpoint, REQUEST)
        assert await response.read_all(10) == b"ok"
        response.close()
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;ext=1\r\no\r\n1\r\nk\r\n0\r\ntrailer: x\r\n\r\n",
    ],
)
async def test_unusual_but_legal_answers(answer):
    async with server(answering(answer)) as endpoint:
        client = new_client()
        for _ in range(2):
            response = await client.post(endpoint, REQUEST)
            assert await response.read_all(10) == b"ok"
            response.close()
        client.close()


async def test_a_refused_connection_is_a_connect_failure():
    endpoint = parse_endpoint("http://127.0.0.1:1", "key")
    assert endpoint is not None
    with pytest.raises(UpstreamError) as refused:
        await new_client().post(endpoint, REQUEST)
    assert refused.value.failure is Failure.CONNECT


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])
async def test_silence_before_the_first_byte_times_out(sent):
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await reader.read()

    request = UpstreamRequest("/v1/x", b"{}", first_byte_timeout_s=0.1, idle_timeout_s=5)
    async with server(handle) as endpoint:
        with pytest.raises(UpstreamError) as silent:
            await (await new_client().post(endpoint, request)).read()
        assert silent.value.failure is Failure.TIMEOUT


async def test_silence_between_chunks_times_out_and_chunks_come_as_they_are_sent():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"1\r\nb\r\n")
        await reader.read()

    request = UpstreamRequest("/v1/x", b"{}", first_byte_timeout_s=5, idle_timeout_s=0.2)
    async with server(handle) as endpoint:
        response = await new_client().post(endpoint, request)
        assert [await response.read(), await response.read()] == [b"a", b"b"]
        with pytest.raises(UpstreamError) as silent:
            await response.read()
        assert silent.value.failure is Failure.TIMEOUT


@pytest.mark.parametrize("after_head", [False, True])
async def test_a_cancelled_request_closes_its_connection_at_once(after_head):
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if after_head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await reader.read()
        closed.set()

    async with server(handle) as endpoint:
        client = new_client()

        async def exchange() -> None:
            response = await client.post(endpoint, REQUEST)
            try:
                await response.read()
            finally:
                response.close()

        task = asyncio.create_task(exchange())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait_for(closed.wait(), 1)
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_that_is_slow_stops_the_engine_from_filling_memory():
    written = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with server(handle) as endpoint:
        response = await new_client().post(endpoint, REQUEST)
        await asyncio.sleep(0.3)
        stalled = written
        assert stalled < 32 << 20
        total = 0
        while total < stalled:
            total += len(await response.read())
        response.close()


async def test_a_secure_endpoint_is_used_only_with_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    answer = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", then_close=False)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    endpoint = parse_endpoint(f"https://localhost:{listener.sockets[0].getsockname()[1]}", None)
    assert endpoint is not None
    request = UpstreamRequest("/v1/x", b"{}", 5.0, 5.0)
    try:
        stranger = PooledUpstreamClient(connect_timeout_s=5)
        with pytest.raises(UpstreamError) as refused:
            await stranger.post(endpoint, request)
        assert refused.value.failure is Failure.CONNECT
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = PooledUpstreamClient(connect_timeout_s=5)
        for _ in range(2):
            response = await client.post(endpoint, request)
            assert (response.status, await response.read_all(100)) == (200, b"ok")
            response.close()
        client.close()
        await asyncio.sleep(0.1)
    finally:
        listener.close()
