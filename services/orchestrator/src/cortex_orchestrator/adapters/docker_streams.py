"""Long answers of the Docker engine: events, logs, pulls. Not in threads: one waits for each as long as it is read.

aiodocker finds the engine and opens the connection. Its own readers are not used: they take a lost connection for the
end of an answer and leave the connection to the garbage collector when their reader leaves early.
"""

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiodocker
import aiohttp

from cortex_kit.errors import TransientError

CALL_TIMEOUT_S = 30.0
FRAME_HEADER = struct.Struct(">BxxxL")
FRAME_BYTES = 64 * 1024
LONG_LINE_BYTES = 1024 * 1024


class Refused(Exception):
    """The engine refused; its status and words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class DockerStreams:
    """`url` as of the SDK; without it DOCKER_HOST, the Docker context, then the local socket."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url

    @asynccontextmanager
    async def open(
        self, method: str, path: str, params: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.StreamReader, None]:
        """The body of one answer, on a connection of its own that is closed however one leaves.

        Raises:
            Refused: the engine answered with an error.
            TransientError: it cannot be reached, or the connection broke while the body was read.
        """
        try:
            async with self._client() as client:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    response = await self._request(client, method, path, params)
                try:
                    yield response.content
                finally:
                    response.close()
        except aiodocker.DockerError as error:
            raise Refused(error.status, str(error.message)) from error
        except TimeoutError as error:
            raise TransientError(f"the Docker engine did not answer in {CALL_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise TransientError(f"the connection to the Docker engine broke: {error!r}") from error

    def _client(self) -> aiodocker.Docker:
        try:
            return aiodocker.Docker(url=self._url)
        except (AssertionError, ValueError) as error:  # how it says that it found no socket
            raise TransientError("there is no Docker engine: no DOCKER_HOST and no socket") from error

    async def _request(
        self, client: aiodocker.Docker, method: str, path: str, params: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        version = (await client.version())["ApiVersion"]
        response = await client.session.request(
            method,
            f"{client.docker_host}/v{version}/{path}",
            params=dict(params),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
            read_bufsize=LONG_LINE_BYTES,
        )
        if response.status < 400:
            return response
        try:
            text = (await response.text())[:2000]
        finally:
            response.close()
        raise Refused(response.status, _message(text))


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


async def json_lines(body: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """One object a line, until the end of the body.

    Raises:
        ValueError: a line is no JSON, or longer than a megabyte.
    """
    while line := await body.readline():
        if line.strip():
            yield cast("dict[str, Any]", json.loads(line))


async def frames(body: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The output of a container without a terminal: stdout and stderr as they were written, in pieces."""
    while True:
        try:
            header = await body.readexactly(FRAME_HEADER.size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return
        remaining = int(FRAME_HEADER.unpack(header)[1])
        while remaining:
            piece = await body.readexactly(min(remaining, FRAME_BYTES))
            remaining -= len(piece)
            yield piece
