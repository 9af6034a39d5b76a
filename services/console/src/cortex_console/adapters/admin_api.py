"""The admin API in the name of one signed-in user."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from cortex_console.adapters.http_client import refusal, unreachable
from cortex_console.domain.formatting import moment
from cortex_console.domain.shapes import Row, row, text
from cortex_console.errors import ConsoleError
from cortex_console.ports import Query

SESSION_COOKIE = "cortex_session"
CSRF_HEADER = "X-CSRF-Token"
_STREAM = httpx.Timeout(None, connect=3.0)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose browser it is, as the registry is to see it."""

    address: str = ""
    agent: str = ""
    scheme: str = "http"

    def headers(self) -> dict[str, str]:
        """What a trusted proxy tells."""
        shown = {"X-Forwarded-Proto": self.scheme, "User-Agent": self.agent or "cortex-console"}
        return shown | ({"X-Forwarded-For": self.address} if self.address else {})


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What proves a session to the registry. Lives in the browser's cookies and, for a request or a page, here."""

    session: str = field(repr=False)
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has begun."""

    secrets: SessionSecrets
    me: Row
    expires_at: datetime | None


class AdminApi:
    """`AdminCalls` over HTTP."""

    def __init__(self, client: httpx.AsyncClient, secrets: SessionSecrets, visitor: Visitor) -> None:
        self._client = client
        self.secrets = secrets
        self._headers = visitor.headers() | {"Cookie": f"{SESSION_COOKIE}={secrets.session}"}

    async def get(self, path: str, query: Query | None = None) -> Row:
        """See AdminCalls."""
        return await self._call("GET", path, query=query)

    async def post(
        self, path: str, body: object = None, query: Query | None = None, *, version: int | None = None
    ) -> Row:
        """See AdminCalls."""
        return await self._call("POST", path, body=body, query=query, headers=_condition(version))

    async def put(self, path: str, body: object = None, *, version: int | None = None) -> Row:
        """See AdminCalls."""
        return await self._call("PUT", path, body=body, headers=_condition(version))

    async def patch(self, path: str, body: object, *, version: int | None = None) -> Row:
        """See AdminCalls."""
        return await self._call("PATCH", path, body=body, headers=_condition(version))

    async def delete(self, path: str, query: Query | None = None) -> Row:
        """See AdminCalls."""
        return await self._call("DELETE", path, query=query)

    @asynccontextmanager
    async def stream(self, path: str, query: Query | None = None) -> AsyncGenerator[AsyncIterator[bytes]]:
        """See AdminCalls."""
        async with self.open_stream(path, query) as response:
            yield _chunks(response)

    @asynccontextmanager
    async def open_stream(
        self, path: str, query: Query | None = None, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[httpx.Response]:
        """A long answer, its body unread.

        Raises:
            ConsoleError: the registry refuses, or cannot be reached.
        """
        request = self._client.build_request(
            "GET", f"/admin{path}", params=_given(query), headers=self._headers | (headers or {}), timeout=_STREAM
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        try:
            if response.is_error:
                await response.aread()
                raise refusal(response)
            yield response
        finally:
            await response.aclose()

    async def change_password(self, current: str, new: str) -> Opened:
        """Change one's own password; the session that takes the place of this one."""
        body = {"current_password": current, "new_password": new}
        headers = self._headers | {CSRF_HEADER: self.secrets.csrf}
        return await _open(self._client, "/admin/auth/password", body, headers)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Query | None = None,
        headers: dict[str, str] | None = None,
    ) -> Row:
        sent = self._headers | (headers or {})
        if method != "GET":
            sent[CSRF_HEADER] = self.secrets.csrf
        return row(_answer(await _send(self._client, method, f"/admin{path}", (body, _given(query), sent))))


async def sign_in(client: httpx.AsyncClient, username: str, password: str, visitor: Visitor) -> Opened:
    """Open a session.

    Raises:
        ConsoleError: 401 `invalid_credentials`, 429 `too_many_attempts`, or the registry cannot be reached.
    """
    return await _open(client, "/admin/auth/login", {"username": username, "password": password}, visitor.headers())


async def exchange(client: httpx.AsyncClient, code: str, new_password: str | None, visitor: Visitor) -> Opened:
    """Open a session by the code of a sign-in link, which is good once.

    Raises:
        ConsoleError: 401 `invalid_code`, 409 `new_password_required`, 422 `weak_password`, or the registry cannot be reached.
    """
    body = {"code": code, "new_password": new_password}
    return await _open(client, "/admin/auth/exchange", body, visitor.headers())


async def _open(client: httpx.AsyncClient, path: str, body: object, headers: dict[str, str]) -> Opened:
    response = await _send(client, "POST", path, (body, None, headers))
    me = row(_answer(response))
    secret = response.cookies.get(SESSION_COOKIE)
    if secret is None:
        raise ConsoleError(502, "no_session", "The registry opened no session.")
    secrets = SessionSecrets(secret, text(me.get("csrf_token")))
    return Opened(secrets, me, moment(me.get("expires_at")))


async def _send(
    client: httpx.AsyncClient, method: str, path: str, what: tuple[object, dict[str, Any] | None, dict[str, str]]
) -> httpx.Response:
    body, query, headers = what
    # A connection that was kept may have been closed a moment ago: reading once more does no harm.
    for once_more in (method == "GET", False):
        try:
            return await client.request(method, path, json=body, params=query, headers=headers)
        except httpx.HTTPError as error:
            if not (once_more and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)):
                raise unreachable(error) from error
    raise AssertionError("the second try returns or raises")


def _answer(response: httpx.Response) -> object:
    if response.is_error:
        raise refusal(response)
    if not response.content:
        return {}
    try:
        return response.json()
    except ValueError as error:
        raise ConsoleError(502, "not_json", "The registry's answer is no JSON.") from error


def _condition(version: int | None) -> dict[str, str]:
    return {"If-Match": f'"{version}"'} if version is not None else {}


def _given(query: Query | None) -> dict[str, Any] | None:
    return {name: value for name, value in query.items() if value is not None} if query else None


async def _chunks(response: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except httpx.HTTPError as error:
        raise unreachable(error) from error
