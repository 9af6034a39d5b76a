"""Settings of the console; environment variables CORTEX_CONSOLE_<NAME>. None of them is a secret."""

from typing import Annotated

from pydantic import Field, IPvAnyNetwork, field_validator
from pydantic_settings import NoDecode

from cortex_kit.settings import ProcessSettings


class Settings(ProcessSettings, service="console"):
    """See README.md for the table."""

    port: int = Field(default=8085, ge=0, le=65535)
    registry_url: str = "http://127.0.0.1:8081"
    """Where this process reaches the admin API."""
    gateway_url: str = "http://127.0.0.1:8080"
    """Where this process reaches the OpenAI API."""
    public_gateway_url: str = ""
    """The address of the OpenAI API that people are shown; empty: GATEWAY_URL."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    """Networks, comma-separated, whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins besides the console's own address that may send forms and open its connection, comma-separated."""
    cookie_secure: bool = False
    """Set cookies for https only, also where this process is reached by http."""
    api_timeout_s: float = Field(default=15.0, gt=0)
    api_connections: int = Field(default=64, ge=4)
    """Connections to the admin API at once, beside one stream of events for each signed-in browser."""
    reconnect_timeout_s: float = Field(default=30.0, ge=3)
    """How long a page waits for a browser whose connection broke; its inputs are kept that long."""

    @field_validator("trusted_proxies", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("registry_url", "gateway_url", "public_gateway_url")
    @classmethod
    def _plain(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def shown_gateway_url(self) -> str:
        """What people put into their programs, without the `/v1`."""
        return self.public_gateway_url or self.gateway_url
