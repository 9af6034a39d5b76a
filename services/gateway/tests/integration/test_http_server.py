"""The HTTP server on a real socket: what it refuses, and how it treats clients that are slow, rude or gone."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
import uvloop

from cortex_gateway.domain.errors import ApiError
from cortex_gateway.entrypoints.options import ServerOptions, tls_context
from cortex_gateway.entrypoints.server import HttpServer
from cortex_gateway.ports import ClientGoneError, Reply, Request
from cortex_kit.ops import ops_app
from cortex_testing.certificates import self_signed
from cortex_testing.malformed_http import BODY, MALFORMED, get, post
from cortex_testing.servers import free_port

pytestmark = pytest.mark.integration


def on_uvloop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on the loop that the gateway runs on."""

    @functools.wraps(test)
    def run(*arguments: object, **fixtures: object) -> None:
        uvloop.run(test(*arguments, **fixtures))

    return run


class Recorder:
    """Stands where the pipeline stands: notes whole requests, answers each with what it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.clients: list[str] = []
        self.gone = 0
        self.sent = 0
        self.release = asyncio.Event()

    async def handle(self, request: Request, reply: Reply) -> None:
        try:
            await self._answer(request, reply)
        except ApiError as error:
            body = error.body()
            await reply.start(error.status, [*error.headers(), (b"content-length", b"%d" % len(body))])
            await reply.send(body, more=False)
        except ClientGoneError:
            self.gone += 1
        except asyncio.CancelledError:
            if not reply.gone:
                raise
            self.gone += 1
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()

    async def _answer(self, request: Request, reply: Reply) -> None:
        if request.path == "/refuse":
            raise ApiError(401, "no", "no")
        body = await request.read_body()
        reply.watch()
        self.requests.append((request.method, request.path, body))
        self.clients.append(request.client_ip)
        if request.path == "/wait":
            await self.release.wait()
        if request.path == "/split":
            await reply.start(200, [(b"x-one", b"a\r\nset-cookie: b"), (b"content-length", b"0")])
        if request.path == "/short":
            await reply.start(200, [(b"content-length", b"10")])
            await reply.send(b"abc", more=True)
            return
        if request.path == "/flood":
            await reply.start(200, [])
            for _ in range(10_000):
                await reply.send(b"x" * 10_000, more=True)
                self.sent += 10_000
        if request.path == "/stream":
            await reply.start(200, [(b"content-type", b"text/event-stream")])
            for part in (b"one", b"", b"two"):
                await reply.send(part, more=True)
            await reply.send(b"", more=False)
            return
        answer = request.method.encode() + b" " + request.path.encode() + b" " + body
        await reply.start(200, [(b"content-length", b"%d" % len(answer))])
        await reply.send(answer, more=False)


class Running:
    """A server in this process, and raw connections to it."""

    def __init__(self, server: HttpServer, recorder: Recorder, port: int) -> None:
        self.server = server
        self.recorder = recorder
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, *parts: bytes, timeout_s: float = 10.0) -> bytes:
        """Send, and read until the server closes."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(timeout_s):
                with contextlib.suppress(ConnectionError):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(0)
                return await self._read(reader)
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        got = b""
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                got += part
        return got


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start() -> Start:
    @asynccontextmanager
    async def run(tls: ssl.SSLContext | None = None, **options: object) -> AsyncIterator[Running]:
        recorder = Recorder()
        port = free_port()
        listener = socket.create_server(("127.0.0.1", port))
        server = HttpServer(recorder.handle, ops_app("test", {}), ServerOptions(**options), tls=tls)  # type: ignore[arg-type]
        serving = asyncio.create_task(server.serve(listener))
        await asyncio.sleep(0.01)
        try:
            yield Running(server, recorder, port)
        finally:
            recorder.release.set()
            server.stop()
            async with asyncio.timeout(15):
                await serving

    return run


LAST = b"Connection: close"
CHAT = b"/v1/chat/completions"


def status(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


@on_uvloop
async def test_malformed_requests_are_refused_or_cut_off_and_nothing_gets_through(start: Start):
    """More than 120 of them; beside each one an honest client is served."""
    async with start(max_body_bytes=65_536) as running:
        bad: dict[str, object] = {}
        for name, request in MALFORMED.items():
            answer = await running.exchange(request)
            if answer and not (400 <= status(answer) < 500 or status(answer) == 505):
                bad[name] = answer[:200]
            if answer.count(b"HTTP/1.1 ") > 1:
                bad[name] = "two answers"
            if running.recorder.requests:
                bad[name] = running.recorder.requests[:]
                running.recorder.requests.clear()
        assert not bad
        assert len(MALFORMED) >= 80
        assert status(await running.exchange(post(b"Content-Length: 13", LAST, body=BODY))) == 200


@on_uvloop
async def test_malformed_requests_are_refused_too_when_they_come_in_pieces(start: Start):
    async with start(max_body_bytes=65_536, head_timeout_s=5) as running:
        for name, request in list(MALFORMED.items())[::3]:
            if len(request) > 300:
                continue
            answer = await running.exchange(*[request[at : at + 7] for at in range(0, len(request), 7)])
            assert not answer or 400 <= status(answer) < 500 or status(answer) == 505, name
            assert not running.recorder.requests, name


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    "request_",
    [
        post(b"Content-Length: 13", LAST, body=BODY),
        post(b"Transfer-Encoding: chunked", LAST, body=b"D\r\n" + BODY + b"\r\n0\r\n\r\n"),
        post(
            b"Transfer-Encoding: Chunked",
            LAST,
            body=b"003\r\n" + BODY[:3] + b"\r\na\r\n" + BODY[3:] + b"\r\n0\r\nX: y\r\n\r\n",
        ),
        b"\r\n" + post(b"Content-Length:  13 ", LAST, body=BODY),
        post(b"Content-Length: 013", b"Connection: keep-alive, Close", body=BODY),
        post(b"Content-Length: 13", LAST, body=BODY, target=b"http://gateway" + CHAT + b"?x=1"),
        post(b"Content-Length: 13", b"Upgrade: h2c", LAST, body=BODY),
    ],
)
@on_uvloop
async def test_unusual_but_legal_requests_are_served_however_they_are_cut(start: Start, request_: bytes, size: int):
    async with start() as running:
        answer = await running.exchange(*[request_[at : at + size] for at in range(0, len(request_), size)])
        assert status(answer) == 200
        assert running.recorder.requests == [("POST", CHAT.decode(), BODY)]
        assert b"connection: close\r\n" in answer


@on_uvloop
async def test_requests_sent_ahead_are_answered_in_order_one_at_a_time(start: Start):
    async with start() as running:
        many = b"".join(post(b"Content-Length: 2", body=b"%02d" % number) for number in range(50))
        answer = await running.exchange(many + get(LAST))
        assert [body for _, _, body in running.recorder.requests] == [*(b"%02d" % number for number in range(50)), b""]
        assert answer.count(b"HTTP/1.1 200 OK") == 51
        assert answer.index(b" 07") < answer.index(b" 08")


@on_uvloop
async def test_a_client_that_sends_far_ahead_is_not_read(start: Start):
    async with start() as running:
        reader, writer = await running.connect()
        writer.write(post(target=b"/wait"))
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < 2000:
                    writer.write(post(b"Content-Length: 60000", body=b"x" * 60_000))
                    await writer.drain()
                    sent += 1
        assert sent < 2000
        running.recorder.release.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


@on_uvloop
async def test_a_bad_request_behind_a_good_one_ends_the_connection_after_the_good_answer(start: Start):
    async with start() as running:
        answer = await running.exchange(
            post(b"Content-Length: 13", body=BODY) + MALFORMED["framing: two equal lengths"]
        )
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 400 Bad Request" in answer
        assert len(running.recorder.requests) == 1


@on_uvloop
async def test_a_connection_carries_only_so_many_requests(start: Start):
    async with start(max_requests=3) as running:
        answer = await running.exchange(get() * 5)
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert answer.count(b"connection: close") == 1


@on_uvloop
async def test_what_is_expected_to_continue_is_asked_for_only_when_it_is_wanted(start: Start):
    async with start() as running:
        reader, writer = await running.connect()
        writer.write(post(b"Content-Length: 13", b"Expect: 100-continue", LAST))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert status(await Running._read(reader)) == 200
        writer.close()
        answer = await running.exchange(post(b"Content-Length: 13", b"Expect: 100-continue", target=b"/refuse"))
        assert status(answer) == 401
        assert b"100 Continue" not in answer
        assert b"connection: close" in answer


@on_uvloop
async def test_head_and_old_versions_get_the_framing_they_understand(start: Start):
    async with start() as running:
        answer = await running.exchange(get(LAST, first=b"HEAD /v1/models HTTP/1.1"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"content-length: 16" in head
        assert body == b""
        answer = await running.exchange(get(first=b"GET /stream HTTP/1.0"))
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\nonetwo")
        answer = await running.exchange(get(LAST, first=b"GET /stream HTTP/1.1"))
        assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@on_uvloop
async def test_slow_clients_are_let_go(start: Start):
    async with start(head_timeout_s=0.2, keep_alive_s=0.4, body_timeout_s=0.2) as running:
        assert status(await running.exchange(b"GET /v1/models HT")) == 408
        assert status(await running.exchange(post(b"Content-Length: 13", body=b"{"))) == 408
        assert await running.exchange(b"") == b""
        answer = await running.exchange(get())
        assert answer.count(b"HTTP/1.1 200") == 1
        reader, writer = await running.connect()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /v1/models HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
        assert status(await Running._read(reader)) in (0, 408)
        writer.close()


@on_uvloop
async def test_a_body_that_is_too_large_is_refused_while_it_is_still_being_sent(start: Start):
    async with start(max_body_bytes=10_000) as running:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as http:
            assert (await http.post("/", content=b"x" * 20_000_000)).status_code == 413

            async def parts() -> AsyncIterator[bytes]:
                for _ in range(100):
                    yield b"x" * 100_000

            assert (await http.post("/", content=parts())).status_code == 413
            assert (await http.post("/", content=b"x" * 10_000)).status_code == 200
        assert running.server.budget.used == 0


@on_uvloop
async def test_bodies_in_flight_are_bounded_together(start: Start):
    async with start(max_bodies_bytes=100_000) as running:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as http:
            waiting = asyncio.create_task(http.post("/wait", content=b"x" * 90_000))
            await asyncio.sleep(0.1)
            for size in (20_000, 80_000):
                refused = await http.post("/", content=b"x" * size)
                assert refused.status_code == 503
                assert refused.headers["retry-after"] == "1"
            assert (await http.post("/", content=b"x" * 5_000)).status_code == 200
            running.recorder.release.set()
            assert (await waiting).status_code == 200
            assert (await http.post("/", content=b"x" * 80_000)).status_code == 200
        assert running.server.budget.used == 0


@on_uvloop
async def test_only_so_many_connections_are_held(start: Start):
    async with start(max_connections=2) as running:
        open_ones = [await running.connect() for _ in range(2)]
        answer = await running.exchange(b"")
        assert status(answer) == 503
        assert b"retry-after: 1" in answer
        open_ones[0][1].close()
        await asyncio.sleep(0.1)
        assert status(await running.exchange(get(LAST))) == 200
        open_ones[1][1].close()


@pytest.mark.parametrize("half", [False, True])
@on_uvloop
async def test_a_client_that_leaves_cancels_its_request(start: Start, half: bool):
    async with start() as running:
        reader, writer = await running.connect()
        writer.write(post(target=b"/wait"))
        await asyncio.sleep(0.1)
        if half:
            writer.write_eof()
            assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(0.1)
        assert running.recorder.gone == 1
        reader, writer = await running.connect()
        writer.write(post(b"Content-Length: 13", body=b"{"))
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.sleep(0.1)
        assert running.recorder.gone == 2
        assert len(running.recorder.requests) == 1


@on_uvloop
async def test_a_client_that_reads_slowly_holds_its_answer_back_and_one_that_stalls_is_let_go(start: Start):
    async with start(stall_timeout_s=0.5) as running:
        reader, writer = await running.connect()
        writer.write(get(first=b"GET /flood HTTP/1.1"))
        for _ in range(4):
            await reader.readexactly(50_000)
            await asyncio.sleep(0.1)
        assert running.recorder.sent < 20_000_000
        async with asyncio.timeout(10):
            while not running.recorder.gone:
                await asyncio.sleep(0.05)
        writer.transport.abort()


@pytest.mark.parametrize("target", [b"/split", b"/short"])
@on_uvloop
async def test_an_answer_that_would_break_the_framing_ends_the_connection(start: Start, target: bytes):
    async with start() as running:
        answer = await running.exchange(get(first=b"GET " + target + b" HTTP/1.1"))
        assert b"set-cookie" not in answer
        assert answer == b"" or answer.endswith(b"abc")


@on_uvloop
async def test_the_operations_endpoints_are_served_beside(start: Start):
    async with start() as running, httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz?verbose=1")).status_code == 200
        assert "gateway_http_connections" in (await http.get("/metrics")).text
        assert (await http.post("/healthz", content=b"x")).status_code == 405
        assert not running.recorder.requests


@on_uvloop
async def test_a_drain_lets_answers_end_closes_what_is_idle_and_takes_no_more(start: Start):
    async with start() as running:
        idle, idle_writer = await running.connect()
        idle_writer.write(get())
        await idle.readuntil(b"GET /v1/models ")
        busy, busy_writer = await running.connect()
        busy_writer.write(post(target=b"/wait"))
        await asyncio.sleep(0.05)
        draining = asyncio.create_task(running.server.drain())
        assert await idle.read() == b""
        with pytest.raises(ConnectionError):
            await running.connect()
        await draining
        running.recorder.release.set()
        answer = await busy.read()
        assert status(answer) == 200
        assert b"connection: close" in answer
        idle_writer.close()
        busy_writer.close()


@on_uvloop
async def test_a_request_on_its_way_when_a_drain_begins_is_answered(start: Start):
    async with start() as running:
        reader, writer = await running.connect()
        writer.write(get())
        await reader.readuntil(b"GET /v1/models ")
        draining = asyncio.create_task(running.server.drain())
        await asyncio.sleep(0.05)
        writer.write(get())
        answer = await reader.read()
        assert status(answer) == 200
        assert b"connection: close" in answer
        async with asyncio.timeout(0.5):  # nobody is left to wait for
            await draining
        writer.close()


@on_uvloop
async def test_proxies_that_are_trusted_may_name_the_client(start: Start):
    async with start(trusted_proxies="127.0.0.0/8") as running:
        await running.exchange(get(b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-For: 9.9.9.9, 127.0.0.2", LAST))
        await running.exchange(get(LAST))
        assert running.recorder.clients == ["9.9.9.9", "127.0.0.1"]
    async with start() as running:
        await running.exchange(get(b"X-Forwarded-For: 9.9.9.9", LAST))
        assert running.recorder.clients == ["127.0.0.1"]


@on_uvloop
async def test_it_speaks_tls(start: Start, tmp_path):
    certificate, key = self_signed(tmp_path)
    async with start(tls=tls_context(certificate, key)) as running:
        trust = ssl.create_default_context(cafile=str(certificate))
        async with httpx.AsyncClient(base_url=f"https://localhost:{running.port}", verify=trust) as http:
            assert (await http.post("/v1/x", content=b"x" * 200_000)).status_code == 200
            assert (await http.get("/healthz")).status_code == 200
        assert (await running.exchange(get())) == b""
        assert len(running.recorder.requests) == 1
