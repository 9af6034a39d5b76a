"""Settings of the registry, read once from CORTEX_REGISTRY_*."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, IPvAnyNetwork, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cortex_contracts.streams import DAY, MIB
from cortex_kit.settings import MIN_SECRET_KEY, OldKeys, ServiceSettings
from cortex_registry.domain.keys import Scope

EngineName = Literal["vllm", "llamacpp"]


def _plain(name: str) -> AliasChoices:
    """A variable whose name has no prefix."""
    return AliasChoices(name, name.lower())


class Settings(ServiceSettings, service="registry"):
    """Every knob of the registry; shared values (NATS, secret key, models directory, logs) come from the base."""

    port: int = Field(default=8081, ge=0, le=65535)
    database_url: SecretStr
    """postgresql://user:password@host:port/database"""
    admin_token: SecretStr = Field(min_length=16)
    """Bearer token of the admin API."""
    engines: Annotated[tuple[EngineName, ...], NoDecode] = Field(
        default=("vllm", "llamacpp"),
        validation_alias=AliasChoices("CORTEX_ENGINES", "CORTEX_REGISTRY_ENGINES", "engines"),
    )
    """CORTEX_ENGINES: engines that models may be created for, comma-separated. Models that exist keep running."""

    database_pool_size: int = Field(default=10, ge=2, le=200)
    database_timeout_s: float = Field(default=5.0, gt=0)
    """Longest wait for one statement."""
    database_acquire_timeout_s: float = Field(default=2.0, gt=0)
    """Longest wait for a connection, making one included."""

    max_body_bytes: int = Field(default=256 * 1024, ge=1024)
    inspector_timeout_s: float = Field(default=15.0, gt=0)
    logs_timeout_s: float = Field(default=10.0, gt=0)
    dry_run_timeout_s: float = Field(default=15.0, gt=0)
    test_timeout_s: float = Field(default=90.0, gt=0)
    """Longest wait for the one real request of `models/{ref}/test`."""
    hub_lookups: bool = False
    """Whether `models/hf-config` may ask the Hugging Face Hub; off, only folders of the models directory are read."""
    hub_url: str = "https://huggingface.co"
    hub_timeout_s: float = Field(default=10.0, gt=0)

    self_keys: int = Field(default=10, ge=0, le=1000)
    """How many keys users may make for themselves; 0: none."""
    self_key_scopes: Annotated[tuple[Scope, ...], NoDecode] = ("*",)
    """What such keys may open, comma-separated."""
    self_key_days: int = Field(default=90, ge=0, le=36_500)
    """After how many days such keys expire at the latest; 0: never."""
    self_key_requests_per_minute: int | None = Field(default=None, ge=1)
    """What such a key gets, and the most it may ask for; the same for the next three."""
    self_key_tokens_per_minute: int | None = Field(default=None, ge=1)
    self_key_max_concurrent_streams: int | None = Field(default=None, ge=1)
    self_key_tokens_per_month: int | None = Field(default=None, ge=1)

    usage_batch_size: int = Field(default=200, ge=1, le=1000)
    usage_batch_wait_s: float = Field(default=0.05, gt=0, le=5)
    """How long a usage record waits for others to be inserted with it."""
    usage_retention_days: int = Field(default=400, ge=0, le=36_500)
    """Usage records older than this are dropped by whole months; 0 keeps them for ever."""
    usage_rollup_days: int = Field(default=0, ge=0, le=36_500)
    """The same for the sums of usage by hour, day and month."""
    usage_upkeep_s: float = Field(default=60.0, gt=0)
    """How often days that are over are summed, months made ahead, old ones dropped."""
    usage_query_timeout_s: float = Field(default=15.0, gt=0)
    """Longest wait for one statement of a usage report."""
    usage_exports: int = Field(default=4, ge=1, le=100)
    """Exports that may run at once."""

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
    events_retention_days: float = Field(default=30, gt=0)
    """How long events stay in the log behind the event API, the live stream and webhooks."""
    events_max_rows: int = Field(default=1_000_000, ge=1000)
    events_batch_size: int = Field(default=200, ge=1, le=1000)
    events_batch_wait_s: float = Field(default=0.03, gt=0, le=5)
    """How long an event waits for others to be stored with it."""
    events_max_clients: int = Field(default=200, ge=1)
    """Most clients of the live stream at once."""
    events_queue: int = Field(default=2000, ge=10)
    """How many events a client of the live stream may be behind before it is ended with `overrun`."""
    events_heartbeat_s: float = Field(default=15.0, gt=0)
    events_recheck_s: float = Field(default=20.0, gt=0, le=30)
    """How often a live stream makes sure that its client may still see it."""

    webhooks_timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Longest time for one request to a webhook, answer included."""
    webhooks_concurrency: int = Field(default=4, ge=1, le=32)
    """Most requests at once to one webhook. 1 keeps the order strictly, but for repetitions."""
    webhooks_max_in_flight: int = Field(default=64, ge=1, le=1000)
    webhooks_max_pending: int = Field(default=10_000, ge=100)
    """Most deliveries that wait for one webhook; further events wait in the log."""
    webhooks_retry_base_s: float = Field(default=5.0, gt=0)
    """Wait after the first failed attempt; the following waits grow with it, up to about a day in all."""
    webhooks_disable_after_days: float = Field(default=5.0, gt=0)
    webhooks_retention_days: float = Field(default=14.0, gt=0)
    """How long finished deliveries stay in the delivery log."""
    webhooks_allow_private: bool = True
    """Whether webhooks may lie at private, loopback and link-local addresses."""
    webhooks_ca_file: Path | None = None
    """Certificates to trust beside the usual ones, PEM."""

    session_idle_s: float = Field(default=3600.0, ge=1)
    """A console session ends when it was not used for so long."""
    session_lifetime_s: float = Field(default=12 * 3600.0, ge=1)
    """A console session ends after so long in any case."""
    cookie_secure: bool = False
    """Session cookies travel by https only, also when this service is reached by http behind a proxy."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of consoles at other addresses than the registry's, as `https://console.example`, comma-separated."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = ()
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed, comma-separated."""
    credentials_cache_s: float = Field(default=3.0, ge=0, le=5)
    """How long a session or a personal token is taken for good without asking the database: a revocation made through
    another registry takes effect within this time."""
    password_time_cost: int = Field(default=3, ge=1, le=100)
    """Argon2id: passes over the memory. The defaults are RFC 9106's for little memory."""
    password_memory_kib: int = Field(default=65536, ge=8, le=4 * 1024 * 1024)
    password_parallelism: int = Field(default=4, ge=1, le=64)
    password_hashes_at_once: int = Field(default=2, ge=1, le=64)
    """Most passwords checked at the same time: each takes password_memory_kib."""
    login_free_attempts: int = Field(default=5, ge=1)
    """Failed attempts to sign in as one user before the next have to wait: 1 s, 2 s, 4 s …"""
    login_free_attempts_per_address: int = Field(default=20, ge=1)
    """The same from one address (IPv6: one /64), whatever the user."""
    login_longest_wait_s: float = Field(default=300.0, ge=0, le=86400)
    login_window_s: float = Field(default=3600.0, ge=1, le=86400)
    """Failed attempts are forgotten so long after the last one."""

    export_dir: Path | None = Field(
        default=None, validation_alias=AliasChoices("CORTEX_EXPORT_DIR", "CORTEX_REGISTRY_EXPORT_DIR", "export_dir")
    )
    """CORTEX_EXPORT_DIR: the folder below which backups lie. Several registries share it. Without it there are none."""
    backup_timeout_s: float = Field(default=6 * 3600.0, gt=0)
    """Longest time for one backup or restore."""
    backup_poll_s: float = Field(default=2.0, gt=0, le=60)
    """How often a registry looks for a backup to make, and says how far it is."""
    backup_lost_after_s: float = Field(default=60.0, gt=0)
    """A job whose registry was silent for so long is taken for dead: an export is begun anew, a restore has failed."""

    trends_minutes: int = Field(default=60, ge=1, le=24 * 60)
    """How far back `system/host/trends` reaches."""
    trends_step_s: float = Field(default=15.0, ge=1, le=3600)
    """How far apart its points are."""

    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream and bucket in a NATS cluster."""

    vllm_gen_urls: Annotated[tuple[str, ...], NoDecode] = Field(default=(), validation_alias=_plain("VLLM_GEN_URLS"))
    """Endpoints that others run, comma-separated base URLs; registered at the start, see docs/upstreams.md."""
    vllm_emb_urls: Annotated[tuple[str, ...], NoDecode] = Field(default=(), validation_alias=_plain("VLLM_EMB_URLS"))
    llamacpp_gen_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias=_plain("LLAMACPP_GEN_URLS")
    )

    @field_validator(
        "engines",
        "self_key_scopes",
        "allowed_origins",
        "trusted_proxies",
        "vllm_gen_urls",
        "vllm_emb_urls",
        "llamacpp_gen_urls",
        mode="before",
    )
    @classmethod
    def split_engines(cls, value: object) -> object:
        """`vllm,llamacpp` -> a tuple; the same for other lists."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class MigrationSettings(BaseSettings):
    """What `python -m cortex_registry migrate` needs, which is less than the service does."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="CORTEX_")

    database_url: SecretStr = Field(validation_alias="CORTEX_REGISTRY_DATABASE_URL")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


class ResealSettings(MigrationSettings):
    """What `python -m cortex_registry reseal` and `sign-in-link` need."""

    secret_key: SecretStr = Field(min_length=MIN_SECRET_KEY, validation_alias="CORTEX_SECRET_KEY")
    secret_keys_old: OldKeys = Field(default=(), validation_alias="CORTEX_SECRET_KEYS_OLD")
