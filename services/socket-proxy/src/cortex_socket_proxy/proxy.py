"""The ASGI application: judge, look whose container it is, forward, stream the answer back."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cortex_socket_proxy.policy import (
    Passage,
    Policy,
    Refusal,
    image_id,
    is_ours,
    judge,
    judge_creation,
    judge_network,
)

log = structlog.stdlib.get_logger()
ENGINE = "http://docker"
_KEPT_HEADERS = frozenset({"content-type", "x-registry-auth", "accept", "user-agent"})
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "te", "content-length"}
)


class SocketProxy:
    """Forwards what the policy lets pass. Errors have the shape of Docker's own: {"message": ...}."""

    def __init__(self, engine: httpx.AsyncClient, policy: Policy, *, max_body_bytes: int) -> None:
        self._engine = engine
        self._policy = policy
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except (httpx.TransportError, OSError) as error:
            log.warning("docker_unreachable", error=f"{type(error).__name__}: {error}")
            response = _message(502, f"the Docker engine cannot be reached: {type(error).__name__}")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "replace")
        if request.method == "GET" and path == "/healthz":
            return Response("ok\n", media_type="text/plain")
        verdict = judge(request.method, path, _single(request.scope["query_string"]), self._policy)
        body: bytes | None = None
        if isinstance(verdict, Passage):
            verdict, body = await self._judge_rest(verdict, request)
        if isinstance(verdict, Refusal):
            log.warning("request_refused", method=request.method, path=path[:200], reason=verdict.reason)
            return _message(403, f"refused by the socket proxy: {verdict.reason}")
        return await self._forward(request, path, body)

    async def _judge_rest(self, passage: Passage, request: Request) -> tuple[Passage | Refusal, bytes | None]:
        """What takes the body, or a look at the container."""
        if passage.container is not None:
            return (passage if await self._is_ours(passage.container) else _foreign(passage.container)), b""
        if not passage.create and not passage.network:
            return passage, b""
        raw = await self._body(request.headers, request)
        if raw is None:
            return Refusal(f"the body is larger than {self._max_body_bytes} bytes"), None
        try:
            parsed: object = json.loads(raw)
        except (ValueError, RecursionError):
            return Refusal("the body is not JSON"), None
        if passage.create:
            refusal = judge_creation(parsed, self._policy, await self._image_names(image_id(parsed)))
        else:
            refusal = judge_network(parsed, self._policy)
        return refusal or passage, json.dumps(parsed).encode()

    async def _image_names(self, image: str | None) -> tuple[str, ...]:
        if image is None:
            return ()
        answer = await self._engine.get(f"{ENGINE}/images/{image}/json")
        details: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return (*(details.get("RepoTags") or ()), *(details.get("RepoDigests") or ()))

    async def _body(self, headers: Headers, request: Request) -> bytes | None:
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > self._max_body_bytes:
                return None
        return bytes(received)

    async def _is_ours(self, container: str) -> bool:
        answer = await self._engine.get(f"{ENGINE}/containers/{container}/json")
        if answer.status_code == 404:
            return True  # the engine itself says so, in its own words
        details: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        config: dict[str, Any] = details.get("Config") or {}
        return is_ours(config.get("Labels"))

    async def _forward(self, request: Request, path: str, body: bytes | None) -> Response:
        headers = {name: value for name, value in request.headers.items() if name in _KEPT_HEADERS}
        query = request.scope["query_string"].decode("ascii", "replace")
        asked = self._engine.build_request(
            request.method, f"{ENGINE}{path}{'?' + query if query else ''}", headers=headers, content=body
        )
        answer = await self._engine.send(asked, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP_HEADERS}
        return StreamingResponse(_chunks(answer), status_code=answer.status_code, headers=kept)


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """As they come, until either side is gone."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.TransportError as error:
        log.info("answer_cut", error=type(error).__name__)
    finally:
        await answer.aclose()


def _single(query: bytes) -> dict[str, str]:
    """The parameters; one that is given twice has no value that any image could have."""
    given = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True)
    return {name: values[0] if len(values) == 1 else "\0" for name, values in given.items()}


def _foreign(container: str) -> Refusal:
    return Refusal(f"the container {container} is not one of Cortex")


def _message(status: int, text: str) -> Response:
    return JSONResponse({"message": text}, status_code=status)


def new_engine_client(socket: str, connect_timeout_s: float) -> httpx.AsyncClient:
    """A client of the Docker engine. Answers may stream for hours (events, logs, pulls), so only connecting has a deadline."""
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=socket, retries=1),
        timeout=httpx.Timeout(None, connect=connect_timeout_s),
        limits=httpx.Limits(max_connections=256, max_keepalive_connections=8),
    )
