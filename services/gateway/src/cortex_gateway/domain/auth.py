"""Who may do what: keys by digest, expiry, addresses, scopes, models."""

import hashlib
import ipaddress
from collections.abc import Mapping
from datetime import datetime

from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway.domain import errors
from cortex_gateway.domain.limits import has_limits

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ApiKey:
    """A key document in the form that a request can be checked against quickly, to be read only."""

    __slots__ = (
        "all_scopes",
        "digest",
        "document",
        "expires_at",
        "id",
        "limited",
        "models",
        "networks",
        "org_id",
        "restricted",
        "scopes",
        "user_id",
    )

    def __init__(self, document: KeyDocumentV1, digest: bytes, networks: tuple[Network, ...]) -> None:
        self.document = document
        self.digest = digest
        self.networks = networks
        self.restricted = bool(document.ip_allowlist)
        self.id: str = document.id
        self.user_id = document.user_id
        self.org_id = document.org_id
        self.expires_at = document.expires_at
        self.scopes = frozenset(document.scopes)
        self.all_scopes = "*" in self.scopes
        self.models = frozenset(document.models)
        self.limited = has_limits(document)
        """Any limit is set."""

    def may_use(self, names: frozenset[str]) -> bool:
        """True when the key may use a model known by any of these names."""
        return not self.models or not self.models.isdisjoint(names)


KeyRing = Mapping[bytes, ApiKey]
"""SHA-256 of the whole key -> what it may do."""


def build_key_ring(documents: Mapping[str, KeyDocumentV1]) -> KeyRing:
    """Index the bucket by digest. A document with a malformed digest or network admits nobody."""
    ring: dict[bytes, ApiKey] = {}
    for document in documents.values():
        try:
            digest = bytes.fromhex(document.digest)
            networks = tuple(ipaddress.ip_network(entry, strict=False) for entry in document.ip_allowlist)
        except ValueError:
            continue
        ring[digest] = ApiKey(document, digest, networks)
    return ring


def authenticate(ring: KeyRing, authorization: bytes | None, now: datetime, client_ip: str) -> ApiKey:
    """Find the key behind an Authorization header.

    Raises:
        ApiError: 401 for a missing, unknown or expired key; 403 for an address that it may not be used from.
    """
    if authorization is None or authorization[:7].lower() != b"bearer ":
        raise errors.missing_api_key()
    secret = authorization[7:].strip()
    if not secret:
        raise errors.missing_api_key()
    key = ring.get(hashlib.sha256(secret).digest())
    if key is None:
        raise errors.invalid_api_key(mask(secret))
    check_use(key, now, client_ip)
    return key


def check_use(key: ApiKey, now: datetime, client_ip: str) -> None:
    """Raises ApiError: 401 when the key has expired, 403 for an address that it may not be used from."""
    if key.expires_at is not None and key.expires_at <= now:
        raise errors.expired_api_key()
    if key.restricted and not _address_allowed(key.networks, client_ip):
        raise errors.address_not_allowed()


def require_scope(key: ApiKey, scope: str) -> None:
    """Raises ApiError 403 when the key lacks the scope."""
    if not key.all_scopes and scope not in key.scopes:
        raise errors.scope_missing(scope)


def mask(secret: bytes) -> str:
    """Enough of a key to recognise it in a message, useless to use it."""
    text = secret.decode("ascii", "replace")
    return f"{text[:4]}***{text[-4:]}" if len(text) > 16 else "***"


def _address_allowed(networks: tuple[Network, ...], client_ip: str) -> bool:
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in networks)
