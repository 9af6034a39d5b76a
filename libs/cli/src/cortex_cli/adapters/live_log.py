"""Server-sent events of the admin API, read as they come."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx

from cortex_cli.adapters.http_errors import api_error, transport_error
from cortex_cli.connection import Endpoint
from cortex_cli.shapes import parse_object

_SILENCE_S = 60.0
"""The server says something, if only a comment, much more often."""


async def follow(endpoint: Endpoint, path: str) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    """Pairs of an event's name and data until the server ends the stream.

    Raises:
        CliError: refused, away, or silent for a minute.
    """
    headers = {"Authorization": f"Bearer {endpoint.token}", "Accept": "text/event-stream"}
    timeout = httpx.Timeout(_SILENCE_S, connect=5.0)
    event, data = "message", ""
    try:
        async with (
            httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as client,
            client.stream("GET", endpoint.url + path) as response,
        ):
            if response.is_error:
                raise api_error(response.status_code, (await response.aread()).decode("utf-8", "replace"))
            async for line in response.aiter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                elif line.startswith("data:"):
                    data += line[5:].strip()
                elif not line and data:
                    yield event, parse_object(data)
                    event, data = "message", ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise transport_error(error, endpoint.url) from error
