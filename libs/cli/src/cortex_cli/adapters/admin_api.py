"""The registry's admin REST API."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from cortex_cli.adapters.http_errors import api_error, transport_error
from cortex_cli.connection import Endpoint
from cortex_cli.shapes import parse_object

Row = dict[str, Any]
"""A JSON object of the API, shown as it is."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class AdminApi:
    """Calls with the admin token. Every method raises CliError for a refusal or a server that is away."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def models(self) -> list[Row]:
        """Every model."""
        return await self._list("/admin/models")

    async def model(self, model_id: str) -> Row:
        """One model with its observed state."""
        return await self._call("GET", f"/admin/models/{quote(model_id, safe='')}")

    async def create_model(self, body: Mapping[str, Any]) -> Row:
        """Create a model; it does not start by itself."""
        return await self._call("POST", "/admin/models", body)

    async def ask_model(self, model_id: str, verb: str) -> Row:
        """Ask a model to `start` or `stop`; returns at once."""
        return await self._call("POST", f"/admin/models/{quote(model_id, safe='')}/{verb}")

    async def delete_model(self, model_id: str) -> None:
        """Delete a model and stop its engines."""
        await self._call("DELETE", f"/admin/models/{quote(model_id, safe='')}")

    async def model_logs(self, model_id: str, *, ordinal: int, tail: int) -> list[str]:
        """Last lines of an engine's output."""
        path = f"/admin/models/{quote(model_id, safe='')}/logs?ordinal={ordinal}&tail={tail}"
        lines = (await self._call("GET", path)).get("lines", [])
        return [str(line) for line in lines]

    async def keys(self) -> list[Row]:
        """Every API key, without its secret."""
        return await self._list("/admin/keys")

    async def create_key(self, body: Mapping[str, Any]) -> Row:
        """Make a key; the answer is the only place its secret ever appears."""
        return await self._call("POST", "/admin/keys", body)

    async def revoke_key(self, key_id: str) -> None:
        """Revoke a key for ever."""
        await self._call("DELETE", f"/admin/keys/{quote(key_id, safe='')}")

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Row:
        """Any other request; `path` starts with /admin. An answer without a body is an empty object."""
        return await self._call(method, path, body, headers=headers, timeout=timeout)

    async def rows(self, path: str) -> list[Row]:
        """Every item of a list, piece by piece; `path` may have a query."""
        return await self._list(path)

    async def download(self, path: str, write: Callable[[bytes], object]) -> int:
        """Hand an answer to `write` as it comes; returns its size. An answer that breaks off raises CliError."""
        size = 0
        try:
            async with self._client.stream("GET", self._url + path) as response:
                if response.is_error:
                    raise api_error(response.status_code, (await response.aread()).decode("utf-8", "replace"))
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    write(chunk)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self._url) from error
        return size

    async def _list(self, path: str) -> list[Row]:
        rows: list[Row] = []
        cursor = ""
        while True:
            page = await self._call("GET", path + cursor)
            rows += page.get("items", [])
            if not page.get("next"):
                return rows
            cursor = f"{'&' if '?' in path else '?'}after={quote(str(page['next']), safe='')}"

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Row:
        patience = httpx.Timeout(timeout, connect=5.0)
        try:
            response = await self._client.request(
                method, self._url + path, json=body, headers=headers, timeout=patience
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise transport_error(error, self._url) from error
        if response.is_error:
            raise api_error(response.status_code, response.text)
        return parse_object(response.text)


@asynccontextmanager
async def admin_api(endpoint: Endpoint) -> AsyncGenerator[AdminApi]:
    """A client for the body; proxies of the environment are not used for it."""
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=False) as client:
        yield AdminApi(client, endpoint.url)
