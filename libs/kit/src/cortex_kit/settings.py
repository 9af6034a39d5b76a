"""Base of every service's settings."""

import os
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _shared(name: str) -> AliasChoices:
    return AliasChoices(f"CORTEX_{name}", name.lower())


class ServiceSettings(BaseSettings):
    """Values that every service reads; a subclass adds its own under `CORTEX_<SERVICE>_`.

    `class Settings(ServiceSettings, service="gateway")` sets the prefix. Shared values have no service name:
    CORTEX_NATS_URL, CORTEX_SECRET_KEY, CORTEX_MODELS_DIR, CORTEX_LOG_LEVEL, CORTEX_LOG_FORMAT.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    nats_url: SecretStr = Field(validation_alias=_shared("NATS_URL"))
    secret_key: SecretStr = Field(min_length=32, validation_alias=_shared("SECRET_KEY"))
    models_dir: Path | None = Field(default=None, validation_alias=_shared("MODELS_DIR"))
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias=_shared("LOG_LEVEL")
    )
    log_format: Literal["json", "console"] = Field(default="json", validation_alias=_shared("LOG_FORMAT"))
    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)
    instance: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    shutdown_timeout_s: float = Field(default=30.0, gt=0)

    @classmethod
    def __pydantic_init_subclass__(cls, *, service: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)

    def __init_subclass__(cls, *, service: str | None = None, **kwargs: Any) -> None:
        if service is not None:
            prefix = f"CORTEX_{service.upper().replace('-', '_')}_"
            cls.model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, env_prefix=prefix)
        super().__init_subclass__(**kwargs)
