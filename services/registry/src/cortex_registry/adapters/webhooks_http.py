"""Requests to webhooks: one deadline, no redirect, a bounded answer, and, if so set, public addresses only."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from cortex_kit.clock import Clock
from cortex_registry.domain.webhooks import Attempt, is_public

MAX_ANSWER = 64 * 1024
USER_AGENT = "cortex-webhooks/1"


class _ForbiddenAddressError(Exception):
    """The endpoint lies where this installation forbids it."""


class HttpSender:
    """Sender. Proxies and certificates of the environment are not used."""

    def __init__(self, *, clock: Clock, timeout_s: float, allow_private: bool, ca_file: Path | None) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._ca_file = ca_file
        self._opened: httpx.AsyncClient | None = None

    async def run(self) -> None:
        """A task of the service: closes the connections when it is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            client, self._opened = self._opened, None
            if client is not None:
                await client.aclose()

    @property
    def _client(self) -> httpx.AsyncClient:
        """Made when the first request is sent, because reading the certificates takes a while."""
        if self._opened is None:
            context = ssl.create_default_context()
            if self._ca_file is not None:
                context.load_verify_locations(cafile=self._ca_file)
            self._opened = httpx.AsyncClient(
                verify=context,
                timeout=self._timeout_s,
                trust_env=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=15),
                headers={"User-Agent": USER_AGENT},
            )
        return self._opened

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        at, started = self._clock.now(), time.perf_counter()
        status: int | None = None
        retry_after: float | None = None
        error: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                request = await self._request(url, headers, body)
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    await _drain(response)
                finally:
                    await response.aclose()
                status, retry_after = response.status_code, _seconds(response.headers.get("retry-after"))
                error = None if response.is_success else _refusal(response)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, TimeoutError, ValueError) as failure:
            error = self._describe(failure)
        except _ForbiddenAddressError as failure:
            error = str(failure)
        duration = (time.perf_counter() - started) * 1000
        return Attempt(at, status, duration, error, retry_after)

    async def _request(self, url: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        request = self._client.build_request("POST", url, content=body, headers=dict(headers))
        if self._allow_private:
            return request
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await _public_address(host, port)
        # The connection goes to the address that was judged, so that a second answer of the name server cannot matter.
        pinned = request.url.copy_with(host=address)
        return httpx.Request(
            "POST",
            pinned,
            content=body,
            headers=request.headers,  # they name the host as it was given
            extensions={"sni_hostname": host, "timeout": httpx.Timeout(self._timeout_s).as_dict()},
        )

    def _describe(self, failure: Exception) -> str:
        if isinstance(failure, (TimeoutError, httpx.TimeoutException)):
            return f"no answer within {self._timeout_s:g} s"
        if isinstance(failure, httpx.ConnectError):
            return f"no connection: {failure}"[:500]
        return f"{type(failure).__name__}: {failure}"[:500]


async def _public_address(host: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]).split("%")[0] for entry in found]
    for address in addresses:
        if not is_public(address):
            raise _ForbiddenAddressError(f"{host} lies at a private address, which this installation forbids")
    if not addresses:
        raise _ForbiddenAddressError(f"{host} has no address")
    return addresses[0]


async def _drain(response: httpx.Response) -> None:
    """Read a short answer, so that the connection can be used again; a long one is cut off by closing it."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > MAX_ANSWER:
            return


def _refusal(response: httpx.Response) -> str:
    hint = " (redirects are not followed)" if response.is_redirect else ""
    return f"HTTP {response.status_code}{hint}"


def _seconds(header: str | None) -> float | None:
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
