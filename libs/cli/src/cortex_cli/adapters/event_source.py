"""The registry's stream of events, resumed by itself where it broke off."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from cortex_cli.adapters.http_errors import api_error, transport_error
from cortex_cli.connection import Endpoint
from cortex_cli.errors import CliError
from cortex_cli.shapes import parse_object

_SILENCE_S = 60.0
"""The server says something, if only a comment, every 15 s."""
_RETRY_S = 1.0
_RETRY_MAX_S = 10.0
_PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Received:
    """One event of the stream. `id` is its sequence."""

    id: str
    name: str
    data: Mapping[str, Any]


async def follow_events(
    endpoint: Endpoint, query: Mapping[str, Any], *, after: int | None = None
) -> AsyncGenerator[Received]:
    """Every event once, over restarts of the registry, without an end.

    Raises:
        CliError: the first connection fails, or the registry refuses.
    """
    last = str(after) if after is not None else None
    connected, delay = False, _RETRY_S
    headers = {"Authorization": f"Bearer {endpoint.token}", "Accept": "text/event-stream"}
    timeout = httpx.Timeout(_SILENCE_S, connect=5.0)
    async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as client:
        while True:
            resume = {"Last-Event-ID": last} if last is not None else {}
            try:
                async with client.stream(
                    "GET", f"{endpoint.url}/admin/events/stream", params=dict(query), headers=resume
                ) as response:
                    if response.is_error:
                        raise api_error(response.status_code, (await response.aread()).decode("utf-8", "replace"))
                    async for received in _events(response):
                        connected, delay, last = True, _RETRY_S, received.id or last
                        if received.data:
                            _check(received)
                            yield received
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if not connected:
                    raise transport_error(error, endpoint.url) from error
            except CliError as error:
                if not connected or getattr(error, "status", None) not in _PASSING:
                    raise
            await asyncio.sleep(delay)
            delay = min(_RETRY_MAX_S, delay * 2)


async def _events(response: httpx.Response) -> AsyncGenerator[Received]:
    """As they come; one with an id alone only moves the place to resume at."""
    last, name, data = "", "message", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            last = value
        elif field == "event":
            name = value
        elif field == "data":
            data += value
        elif not line and (data or last):
            yield Received(last, name, parse_object(data))
            name, data = "message", ""


def _check(received: Received) -> None:
    if received.name == "signed_out":
        raise CliError("You are not signed in any more.", fix="`cortex login`")
    if received.name in ("gap", "overrun"):
        print(f"cortex: {received.data.get('message')}", file=sys.stderr)
