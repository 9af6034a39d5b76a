"""The gateway with the playground's key: a key that is only just made may not be known there yet."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from cortex_console.adapters.admin_api import AdminApi
from cortex_console.adapters.gateway_api import GatewayApi
from cortex_console.adapters.playground_keys import PlaygroundKey, PlaygroundKeys
from cortex_console.domain.shapes import Row
from cortex_console.errors import ConsoleError

_KNOWN_WITHIN_S = 6.0
_AGAIN_S = 0.15


class PlaygroundGateway:
    """Requests below /v1 in the name of one signed-in user. Every method raises ConsoleError."""

    def __init__(self, client: httpx.AsyncClient, keys: PlaygroundKeys, api: AdminApi) -> None:
        self._client = client
        self._keys = keys
        self._api = api

    async def post(self, path: str, body: Mapping[str, Any]) -> Row:
        """`POST /v1<path>`."""
        begun = time.monotonic()
        while True:
            key = await self._keys.key(self._api)
            try:
                return await GatewayApi(self._client, key.secret).post(path, body)
            except ConsoleError as error:
                await self._refused(error, key, begun)

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[AsyncIterator[str]]:
        """The data of each event of an answer."""
        begun = time.monotonic()
        while True:
            key = await self._keys.key(self._api)
            opened = GatewayApi(self._client, key.secret).stream(path, body)
            try:
                events = await opened.__aenter__()
            except ConsoleError as error:
                await self._refused(error, key, begun)
                continue
            try:
                yield events
            finally:
                await opened.__aexit__(None, None, None)
            return

    async def _refused(self, error: ConsoleError, key: PlaygroundKey, begun: float) -> None:
        """Returns when it is worth another try; raises what it was otherwise."""
        if error.status != 401:
            raise error
        if time.monotonic() - begun > _KNOWN_WITHIN_S:
            # Not a 401: that would read as the end of the session.
            message = "The gateway does not take the key that the playground made for you."
            raise ConsoleError(502, "playground_key_refused", message) from error
        if time.monotonic() - key.made > _KNOWN_WITHIN_S:
            self._keys.drop(self._api, key)
        await asyncio.sleep(_AGAIN_S)
