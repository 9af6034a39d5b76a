"""Settings: environment variables `CORTEX_SOCKET_PROXY_*`. The proxy holds no secret."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cortex_socket_proxy.policy import Policy

Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Lists are comma-separated."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix="CORTEX_SOCKET_PROXY_", use_attribute_docstrings=True
    )

    host: str = "0.0.0.0"
    port: int = Field(default=2375, ge=0, le=65535)
    socket: Path = Path("/var/run/docker.sock")
    images: Names = ("ghcr.io/ggml-org/llama.cpp:*", "vllm/vllm-openai:*", "cortex/*")
    """Image references that may be pulled and run."""
    binds: Names = ()
    """Host folders that engines may read: the models folder as the Docker host sees it."""
    volumes: Names = ("cortex-hub-cache",)
    network: str = "cortex-engines"
    devices: Names = ()
    max_body_bytes: int = Field(default=256 * 1024, ge=1024)
    connect_timeout_s: float = Field(default=5.0, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("images", "binds", "volumes", "devices", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def policy(self) -> Policy:
        """What may pass."""
        return Policy(self.images, self.binds, self.volumes, self.network, self.devices)
