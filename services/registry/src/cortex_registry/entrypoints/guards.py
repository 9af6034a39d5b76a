"""What every request passes before a route: an id, authentication, a limit on the body, measurement."""

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import structlog
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.identity import ROOT, Identity
from cortex_registry.entrypoints.problems import RETRY_AFTER_S, problem
from cortex_registry.errors import UnavailableError

log = get_logger()
REQUEST_ID = "cortex.request_id"
IDENTITY = "cortex.identity"
REAUTHENTICATE = "cortex.reauthenticate"
"""Finds out once more who sends a request that takes long."""
ADMIN = "/admin"
_REQUEST_ID_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class RequestContext:
    """Gives each request an id (the caller's, when it is a sane one), binds it to logs, counts the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        scope[REQUEST_ID] = request_id
        started = time.perf_counter()
        status, answered = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                answered = True
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                # The boundary of a request: its error is logged here, once, and must not end the connection mutely.
                log.exception("request_crashed", method=scope["method"])
                if not answered:
                    crash = problem(500, "internal_error", "The registry failed; its log holds the reason.")
                    await crash(scope, receive, send_with_id)
            finally:
                _measure(scope, status, time.perf_counter() - started)


def _request_id(given: str | None) -> str:
    return given if given is not None and _REQUEST_ID_SHAPE.fullmatch(given) else uuid7()


def _measure(scope: Scope, status: int, seconds: float) -> None:
    if not scope["path"].startswith(ADMIN):
        return  # health checks and scrapes say nothing about the API
    route: Any = scope.get("route")
    # FastAPI keeps an included router's path without its prefix.
    path = "none" if route is None else f"{ADMIN}{route.path_format}"
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.REQUESTS.labels(method, path, str(status)).inc()
    metrics.REQUEST_SECONDS.labels(path).observe(seconds)


class Authenticator(Protocol):
    """Finds out who sends a request. Raises UnavailableError when it cannot be found out now."""

    async def authenticate(self, headers: Headers, method: str) -> Identity | None:
        """None: nobody. Raises DomainError 403 for a session whose request may be forged."""
        ...


class RootToken:
    """Authenticator for the admin token of the settings, which works without the database."""

    def __init__(self, token: SecretStr) -> None:
        self._digest = hashlib.sha256(token.get_secret_value().encode()).digest()

    async def authenticate(self, headers: Headers, method: str) -> Identity | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # Digests have one length, so the comparison tells nothing about the token's.
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return ROOT if hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer" else None


class Authentication:
    """Finds out who asks, before the body is read; refuses nobody's requests below /admin but to public paths."""

    def __init__(
        self, app: ASGIApp, *, authenticators: Sequence[Authenticator], public: frozenset[tuple[str, str]]
    ) -> None:
        self._app = app
        self._authenticators = authenticators
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(ADMIN):
            await self._app(scope, receive, send)
            return
        if (scope["method"], scope["path"]) in self._public:
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._identify(Headers(scope=scope), scope["method"])
        except DomainError as error:
            await problem(error.status, error.code, error.message)(scope, receive, send)
            return
        except UnavailableError as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            await problem(503, error.code, error.message, headers=headers)(scope, receive, send)
            return
        if identity is None:
            log.warning("admin_request_refused", path=scope["path"][:200])
            await _unauthorized()(scope, receive, send)
            return
        scope[IDENTITY] = identity
        scope[REAUTHENTICATE] = partial(self._identify, Headers(scope=scope), scope["method"])
        await self._app(scope, receive, send)

    async def _identify(self, headers: Headers, method: str) -> Identity | None:
        for authenticator in self._authenticators:
            identity = await authenticator.authenticate(headers, method)
            if identity is not None:
                return identity
        return None


def _unauthorized() -> Response:
    return problem(
        401,
        "unauthorized",
        "Sign in, or give a token: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": 'Bearer realm="cortex-admin"'},
    )


class BodyLimit:
    """413 for a body that is announced, or turns out, too large."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem(413, "body_too_large", self._detail())(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, self._detail())
            return message

        await self._app(scope, limited, send)

    def _detail(self) -> str:
        return f"The body is larger than {self._max_bytes} bytes."
