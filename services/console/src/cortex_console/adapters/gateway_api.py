"""The OpenAI API, for tries in the playground. It takes an API key of the user's, never one of the console's."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from cortex_console.domain.shapes import row, text
from cortex_console.errors import ConsoleError


class GatewayApi:
    """Requests below /v1 with one API key."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"}

    async def post(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        """`POST /v1<path>`.

        Raises:
            ConsoleError: the gateway or the engine refuses, or cannot be reached.
        """
        try:
            response = await self._client.post(f"/v1{path}", json=body, headers=self._headers)
        except httpx.HTTPError as error:
            raise _unreachable() from error
        _check(response)
        return row(response.json())

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[AsyncIterator[str]]:
        """The data of each server-sent event of an answer, `[DONE]` left out.

        Raises:
            ConsoleError: as `post`; also while it streams.
        """
        request = self._client.build_request("POST", f"/v1{path}", json=body, headers=self._headers)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise _unreachable() from error
        try:
            if response.is_error:
                await response.aread()
            _check(response)
            yield _data(response)
        finally:
            await response.aclose()


async def _data(response: httpx.Response) -> AsyncGenerator[str]:
    try:
        async for line in response.aiter_lines():
            if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                yield data
    except httpx.HTTPError as error:
        raise ConsoleError(0, "stream_broken", "The answer broke off.") from error


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        error = row(row(response.json()).get("error"))
    except ValueError:
        error = row(None)
    message = text(error.get("message"), f"The gateway answered {response.status_code}.")
    code = text(error.get("code") or error.get("type"), f"http_{response.status_code}")
    raise ConsoleError(response.status_code, code, message)


def _unreachable() -> ConsoleError:
    return ConsoleError(0, "gateway_unavailable", "The gateway cannot be reached. It may be starting.")
