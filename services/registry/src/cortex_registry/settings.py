"""Settings of the registry, read once from CORTEX_REGISTRY_*."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cortex_contracts.streams import DAY, MIB
from cortex_kit.settings import ServiceSettings

EngineName = Literal["vllm", "llamacpp"]


class Settings(ServiceSettings, service="registry"):
    """Every knob of the registry; shared values (NATS, secret key, models directory, logs) come from the base."""

    port: int = Field(default=8081, ge=0, le=65535)
    database_url: SecretStr
    """postgresql://user:password@host:port/database"""
    admin_token: SecretStr = Field(min_length=16)
    """Bearer token of the admin API."""
    engines: Annotated[tuple[EngineName, ...], NoDecode] = ("vllm", "llamacpp")
    """Engines that models may be created for, comma-separated."""

    database_pool_size: int = Field(default=10, ge=2, le=200)
    database_timeout_s: float = Field(default=5.0, gt=0)
    """Longest wait for one statement."""
    database_acquire_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a connection, making one included."""

    max_body_bytes: int = Field(default=256 * 1024, ge=1024)
    inspector_timeout_s: float = Field(default=15.0, gt=0)
    logs_timeout_s: float = Field(default=10.0, gt=0)

    usage_batch_size: int = Field(default=200, ge=1, le=1000)
    usage_batch_wait_s: float = Field(default=0.05, gt=0, le=5)
    """How long a usage record waits for others to be inserted with it."""

    outbox_poll_s: float = Field(default=1.0, gt=0)
    outbox_batch_size: int = Field(default=100, ge=1, le=1000)
    resync_s: float = Field(default=300.0, gt=0)
    """How often the KV documents are compared with Postgres."""
    state_settle_s: float = Field(default=0.25, ge=0)
    """How long observations gather before a change of state is announced."""
    state_grace_s: float = Field(default=10.0, ge=0)
    """Silence about states after NATS came back, while the other services write anew what they observe."""

    events_max_age_s: float = Field(default=7 * DAY, gt=0)
    events_max_bytes: int = Field(default=1024 * MIB, ge=MIB)
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream and bucket in a NATS cluster."""

    @field_validator("engines", mode="before")
    @classmethod
    def split_engines(cls, value: object) -> object:
        """`vllm,llamacpp` -> a tuple."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class MigrationSettings(BaseSettings):
    """What `python -m cortex_registry migrate` needs, which is less than the service does."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="CORTEX_")

    database_url: SecretStr = Field(validation_alias="CORTEX_REGISTRY_DATABASE_URL")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
