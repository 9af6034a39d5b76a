"""Requests that are ended from outside: by their deadline, or by their id."""

import asyncio

import pytest

from cortex_gateway.cancelling import Cancellation
from cortex_gateway.domain.auth import ApiKey
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.early_stream import error_tail, ping
from cortex_gateway.ports import Request
from cortex_gateway.running import RunningRequests, deadline_of


class Others:
    def __init__(self, *, know: bool = False) -> None:
        self.know = know
        self.asked: list[tuple[str, str]] = []

    async def cancel(self, key_id: str, request_id: str) -> bool:
        self.asked.append((key_id, request_id))
        return self.know


class FakeReply:
    def __init__(self) -> None:
        self.started = False
        self.gone = False
        self.status = 0
        self.sent = b""

    def watch(self) -> None: ...

    async def start(self, status, headers) -> None:
        assert not self.started
        self.started, self.status = True, status

    async def send(self, chunk: bytes, *, more: bool) -> None:
        self.sent += chunk


def request(**headers: str) -> Request:
    async def nothing() -> bytes:
        return b""

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", "/", given, "127.0.0.1", nothing)


async def serve(running: RunningRequests, key: str, name: str, deadline_ms: int | None = None) -> ApiError | None:
    """What the inference handler does, without inference."""
    entry = running.enter(key, name, deadline_ms)
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        if entry.interruption is None:
            raise
        entry.absorb()
        return entry.interruption
    finally:
        running.leave(entry)
    return None


async def test_a_deadline_ends_a_request_and_its_task_lives_on():
    running = RunningRequests()
    error = await asyncio.wait_for(serve(running, "k", "r", 20), 3)
    assert error is not None
    assert (error.status, error.openai_code) == (504, "deadline_exceeded")
    task = asyncio.current_task()
    assert task is not None
    assert (task.cancelling(), len(running)) == (0, 0)


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("30000", 30000)])
def test_a_deadline_is_a_number_of_milliseconds(value, expected):
    assert deadline_of(request(x_request_timeout_ms=value)) == expected
    assert deadline_of(request()) is None


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "99999999999", "9" * 50, "²"])
def test_anything_else_is_refused(value):
    with pytest.raises(ApiError) as refused:
        deadline_of(request(x_request_timeout_ms=value))
    assert refused.value.status == 400


async def test_a_request_is_cancelled_by_its_own_key_only():
    running, others = RunningRequests(), Others()
    task = asyncio.create_task(serve(running, "mine", "r"))
    await asyncio.sleep(0)
    assert not running.cancel("yours", "r")
    assert not running.cancel("mine", "other")
    assert running.cancel("mine", "r")
    error = await task
    assert error is not None
    assert error.openai_code == "request_cancelled"
    assert not running.cancel("mine", "r")
    assert others.asked == []


async def test_an_id_used_twice_means_both():
    running = RunningRequests()
    tasks = [asyncio.create_task(serve(running, "k", "r")) for _ in range(2)]
    await asyncio.sleep(0)
    assert running.cancel("k", "r")
    assert all(await asyncio.gather(*tasks))
    assert len(running) == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
async def test_namesakes_may_end_in_any_order(order):
    running = RunningRequests()
    entries = [running.enter("k", "r") for _ in range(3)]
    for count, index in enumerate(order, start=1):
        running.leave(entries[index])
        assert len(running) == (count < 3)


async def test_a_hang_up_is_no_interruption():
    running = RunningRequests()
    task = asyncio.create_task(serve(running, "k", "r", 5000))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(running) == 0


def api_key(key) -> ApiKey:
    return ApiKey(key("00" * 32, id="mine"), bytes(32), ())


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/requests/r-1/cancel"), ("DELETE", "/v1/requests/r-1")])
async def test_the_endpoint_cancels_here_or_asks_the_others(key, method, path):
    running, others, reply = RunningRequests(), Others(), FakeReply()
    task = asyncio.create_task(serve(running, "mine", "r-1"))
    await asyncio.sleep(0)
    endpoint = Cancellation(running, others)
    assert await endpoint.handle(api_key(key), method, path, reply, "own") == 200
    assert b'"cancelled":true' in reply.sent
    await task
    with pytest.raises(ApiError) as unknown:
        await endpoint.handle(api_key(key), method, path, FakeReply(), "own")
    assert (unknown.value.status, others.asked) == (404, [("mine", "r-1")])
    others.know = True
    assert await endpoint.handle(api_key(key), method, path, FakeReply(), "own") == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/requests/r", 405),
        ("POST", "/v1/requests/r", 405),
        ("DELETE", "/v1/requests/r/cancel", 405),
        ("DELETE", "/v1/requests/", 404),
        ("POST", "/v1/requests//cancel", 404),
        ("DELETE", "/v1/requests/" + "r" * 65, 404),
    ],
)
async def test_nonsense_is_refused_without_asking_anybody(key, method, path, status):
    others = Others(know=True)
    with pytest.raises(ApiError) as refused:
        await Cancellation(RunningRequests(), others).handle(api_key(key), method, path, FakeReply(), "own")
    assert (refused.value.status, others.asked) == (status, [])


async def test_pings_begin_a_stream_once():
    reply = FakeReply()
    await ping(reply, [])
    await ping(reply, [])
    assert (reply.status, reply.sent) == (200, b": waiting\n\n" * 2)


@pytest.mark.parametrize(
    ("path", "begins", "ends"),
    [
        ("/v1/chat/completions", b"data: {", b"data: [DONE]\n\n"),
        ("/v1/completions", b"data: {", b"data: [DONE]\n\n"),
        ("/v1/messages", b"event: error\ndata: {", b"}\n\n"),
        ("/v1/responses", b"event: error\ndata: {", b"}\n\n"),
    ],
)
def test_a_stream_ends_with_an_error_in_its_apis_shape(path, begins, ends):
    tail = error_tail(path, ApiError(503, "model_failed", "no room"))
    assert tail.startswith(begins)
    assert tail.endswith(ends)
    assert b"model_failed" in tail
