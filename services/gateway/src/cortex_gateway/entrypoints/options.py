"""What the server is told, and what its connections share."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Bounds of the HTTP server. Times are in seconds."""

    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 32 * 1024**2
    max_bodies_bytes: int = 512 * 1024**2
    """All bodies in flight together."""
    max_connections: int = 20_000
    max_requests: int = 10_000
    """On one connection, so that long-lived clients spread over gateways again."""
    head_timeout_s: float = 10.0
    """From the first byte of a request to the end of its head."""
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    stall_timeout_s: float = 60.0
    trusted_proxies: str = ""
    busy_poll_s: float = 0.0
    """See `BusyPoll`; 0 sleeps at once."""


class BodyBudget:
    """Bytes of request bodies that may be held at one time."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """False when there is no room; a body is always let in when no other is there."""
        if self.used and self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


class TrustedProxies:
    """Whose X-Forwarded-For is believed: addresses and networks, comma-separated; `*` everybody's, empty nobody's."""

    def __init__(self, trusted: str) -> None:
        self._everybody = trusted.strip() == "*"
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: set[str] = set()
        for entry in trusted.split(","):
            self._add(entry.strip())
        self.nobody = not (self._everybody or self._networks or self._names)

    def _add(self, entry: str) -> None:
        if not entry or entry == "*":
            return
        try:
            self._networks.append(ip_network(entry, strict=False))
        except ValueError:
            self._names.add(entry)

    def __contains__(self, host: str) -> bool:
        if self._everybody or host in self._names:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def client(self, peer: str, forwarded_for: Sequence[bytes]) -> str:
        """Address of the client: the last hop that no trusted proxy wrote."""
        if self.nobody or not forwarded_for or peer not in self:
            return peer
        hops = [hop.strip() for hop in b",".join(forwarded_for).decode("latin-1").split(",")]
        if self._everybody:
            return hops[0] or peer
        for hop in reversed(hops):
            if hop not in self:
                return hop or peer
        return hops[0] or peer


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1. Raises OSError or ssl.SSLError when the files are of no use."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context
