"""Signing in to the admin API with a password: a short session of which only a personal token remains."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from cortex_cli.adapters.http_errors import api_error, transport_error
from cortex_cli.shapes import parse_object

Row = dict[str, Any]
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class PasswordSession:
    """A session of one user. Every method raises CliError for a refusal or a server that is away."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._csrf = ""

    async def open(self, username: str, password: str) -> Row:
        """Sign in; the answer says whether the password must be changed first."""
        return await self._opened("/admin/auth/login", {"username": username, "password": password})

    async def change_password(self, old: str, new: str) -> Row:
        """Give oneself another password; the session goes on."""
        return await self._opened("/admin/auth/password", {"current_password": old, "new_password": new})

    async def make_token(self, body: Mapping[str, Any]) -> Row:
        """A personal token, with its secret."""
        return await self._call("POST", "/admin/me/tokens", body)

    async def close(self) -> None:
        """Sign out."""
        await self._call("POST", "/admin/auth/logout")

    async def _opened(self, path: str, body: Mapping[str, Any]) -> Row:
        answer = await self._call("POST", path, body)
        self._csrf = str(answer.get("csrf_token") or "")
        return answer

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Row:
        headers = {"X-CSRF-Token": self._csrf} if self._csrf else {}
        try:
            response = await self._client.request(method, self._url + path, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self._url) from error
        if response.is_error:
            raise api_error(response.status_code, response.text)
        return parse_object(response.text)


@asynccontextmanager
async def password_session(url: str) -> AsyncGenerator[PasswordSession]:
    """A client for the body; it has not signed in yet."""
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
        yield PasswordSession(client, url.rstrip("/"))
