"""The client's address and scheme behind proxies: believed from those that the settings name, from nobody else."""

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_HOPS = 32


class ForwardedFor:
    """Replaces the peer's address by the one that trusted proxies tell, and http by https when they say so."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._trusted and self._is_trusted(_peer(scope)):
            headers = Headers(scope=scope)
            scope = dict(scope)
            client = self._client(headers.getlist("x-forwarded-for"))
            if client is not None:
                scope["client"] = (str(client), 0)
            if [value.strip().lower() for value in headers.getlist("x-forwarded-proto")] == ["https"]:
                scope["scheme"] = "https"
        await self._app(scope, receive, send)

    def _client(self, values: Sequence[str]) -> Address | None:
        """The nearest address that is no trusted proxy; what is left of it may be invented by the client."""
        hops = [hop.strip() for value in values for hop in value.split(",")][-MAX_HOPS:]
        nearest: Address | None = None
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                return nearest
            nearest = address
            if not self._is_trusted(address):
                return nearest
        return nearest

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _peer(scope: Scope) -> Address | None:
    client = scope.get("client")
    return _address(client[0]) if client else None


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
