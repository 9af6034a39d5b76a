"""Base of every service's settings."""

import os
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_SECRET_KEY = 32


def _shared(name: str) -> AliasChoices:
    return AliasChoices(f"CORTEX_{name}", name.lower())


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _long(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(key.get_secret_value()) < MIN_SECRET_KEY for key in keys):
        raise ValueError(f"each of CORTEX_SECRET_KEYS_OLD has at least {MIN_SECRET_KEY} characters")
    return keys


OldKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_long)]
"""Keys of before, comma-separated in the environment."""


class ProcessSettings(BaseSettings):
    """Values of every process with an HTTP port; a subclass adds its own under `CORTEX_<SERVICE>_`.

    `class Settings(ProcessSettings, service="console")` sets the prefix. Shared values have no service name:
    CORTEX_LOG_LEVEL, CORTEX_LOG_FORMAT.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True)

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
            cls.model_config = SettingsConfigDict(**ProcessSettings.model_config | {"env_prefix": prefix})
        super().__init_subclass__(**kwargs)


class ServiceSettings(ProcessSettings):
    """Values that every service on the bus reads, further shared ones among them.

    CORTEX_NATS_URL, CORTEX_SECRET_KEY, CORTEX_SECRET_KEYS_OLD, CORTEX_MODELS_DIR.
    """

    nats_url: SecretStr = Field(validation_alias=_shared("NATS_URL"))
    secret_key: SecretStr = Field(min_length=MIN_SECRET_KEY, validation_alias=_shared("SECRET_KEY"))
    secret_keys_old: OldKeys = Field(default=(), validation_alias=_shared("SECRET_KEYS_OLD"))
    """Keys of before, comma-separated: they open what they have sealed, and seal nothing (docs: secrets)."""
    models_dir: Path | None = Field(default=None, validation_alias=_shared("MODELS_DIR"))
