"""Settings of the gateway; environment variables CORTEX_GATEWAY_<NAME>."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cortex_kit.settings import ServiceSettings


class Settings(ServiceSettings, service="gateway"):
    """See README.md for the table."""

    port: int = 8080
    spool_dir: Path = Path("gateway-spool")
    """Usage records wait here until NATS has them. Must survive a restart; several gateways may share it."""
    spool_max_bytes: int = Field(default=1024**3, ge=64 * 1024)
    spool_fsync: Literal["never", "interval", "always"] = "interval"
    """`interval` (each second) loses at most a second at a power failure; no policy loses anything at a kill."""
    trusted_proxies: str = ""
    """Addresses, comma-separated, whose X-Forwarded-For names the client; `*` trusts every peer, empty none."""
    max_body_bytes: int = Field(default=32 * 1024**2, ge=1024)
    max_response_bytes: int = Field(default=256 * 1024**2, ge=1024)
    """Largest answer that is not a stream."""
    body_timeout_s: float = Field(default=60.0, gt=0)
    client_stall_timeout_s: float = Field(default=60.0, gt=0)
    """A client that takes nothing for this long is treated as gone."""
    connect_timeout_s: float = Field(default=2.0, gt=0)
    replica_wait_s: float = Field(default=5.0, ge=0)
    """How long a request waits for a replica of a model that should run."""
    max_waiters: int = Field(default=1024, ge=0)
    max_attempts: int = Field(default=4, ge=1)
    """Attempts per request before the first byte of an answer."""
    breaker_failures: int = Field(default=3, ge=1)
    breaker_cooldown_s: float = Field(default=2.0, gt=0)
    count_timeout_s: float = Field(default=5.0, gt=0)
    """How long an engine may take to count the prompt of a client that hung up."""
