"""Addresses of endpoints that others run: what may be stored, probed and sent requests to."""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

MAX_URL = 512
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?)*\.?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_V6 = ipaddress.ip_address("fd00:ec2::254")


def base_url(text: str) -> str:
    """The address in the one form that is stored: scheme, host, port and path, without `/v1` and without a slash.

    Raises:
        ValueError: saying what is wrong with it, without repeating it, since it may hold a password.
    """
    if len(text) > MAX_URL or any(not "!" <= character <= "~" for character in text):
        raise ValueError(f"a URL has at most {MAX_URL} visible ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("a URL begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold credentials: give api_key")
    if "?" in text or "#" in text:
        raise ValueError("a URL must not hold a query or a fragment")
    if "\\" in text or not parts.hostname or port == 0:
        raise ValueError("a URL needs a host")
    if not _PATH.fullmatch(parts.path) or ".." in parts.path:
        raise ValueError("the path of the URL is not a plain one")
    host = _checked_host(parts.hostname)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{path}"


def _checked_host(host: str) -> str:
    address = _address(host)
    if address is None:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise ValueError("the host of the URL is not one")
        if host.rstrip(".").lower() in _METADATA_NAMES:
            raise ValueError("metadata services of clouds are not endpoints")
        return host.lower()
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    checked = mapped or address
    if checked.is_link_local or checked == _METADATA_V6:
        raise ValueError("link-local addresses, where metadata services of clouds are, are not endpoints")
    if checked.is_unspecified or checked.is_multicast or (checked.is_reserved and not checked.is_loopback):
        raise ValueError("the address in the URL is not one of a host")
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, in any spelling that a resolver takes (0xA9FEA9FE, 2852039166, 127.1)."""
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise ValueError("the address in the URL is not one") from None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None
