"""The operations endpoints: an ASGI application (FastAPI) behind our own server, off the hot path."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.ports import ClientGoneError, Headers, Reply, Request

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})
OPERATION_TIMEOUT_S = 30.0


async def run_asgi(app: AsgiApp, request: Request, reply: Reply) -> None:
    """Answer one request by an ASGI application. Answers are passed on as they come; requests are read whole."""
    status = 500
    headers: Headers = []

    async def receive() -> Message:
        return {"type": "http.request", "body": await request.read_body(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], [(bytes(name), bytes(value)) for name, value in message["headers"]]
            return
        if not reply.started:
            await reply.start(status, headers)
        await reply.send(message.get("body", b""), more=message.get("more_body", False))

    try:
        async with asyncio.timeout(OPERATION_TIMEOUT_S):
            await app(_scope(request), receive, send)
    except ClientGoneError:
        return
    except TimeoutError:
        await _refuse(reply, errors.internal_error())
    except ApiError as error:
        await _refuse(reply, error)


async def _refuse(reply: Reply, error: ApiError) -> None:
    if not reply.started:
        body = error.body()
        await reply.start(error.status, [*error.headers(), (b"content-length", b"%d" % len(body))])
        await reply.send(body, more=False)


def _scope(request: Request) -> dict[str, object]:
    raw_path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": request.headers,
        "client": (request.client_ip, 0),
        "server": None,
    }
