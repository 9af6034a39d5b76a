"""Settings of the gateway; environment variables CORTEX_GATEWAY_<NAME>."""

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from cortex_kit.settings import ServiceSettings
from cortex_kit.tracing import Sampler, TracingConfig


def _standard(name: str, standard: str) -> AliasChoices:
    """Our variable, or the one that OpenTelemetry gave the same meaning."""
    return AliasChoices(f"CORTEX_GATEWAY_{name.upper()}", standard, name)


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
    max_bodies_bytes: int = Field(default=512 * 1024**2, ge=1024)
    """Request bodies in flight, together; beyond it 503 with Retry-After."""
    max_head_bytes: int = Field(default=32 * 1024, ge=1024, le=1024**2)
    max_headers: int = Field(default=100, ge=10)
    max_connections: int = Field(default=20_000, ge=1)
    max_requests_per_connection: int = Field(default=10_000, ge=1)
    head_timeout_s: float = Field(default=10.0, gt=0)
    """From the first byte of a request to the end of its headers."""
    keep_alive_s: float = Field(default=75.0, gt=0)
    """An idle connection is closed after this long."""
    busy_poll_us: int = Field(default=50, ge=0, le=10_000)
    """At low load the loop sleeps only when nothing came for so many microseconds: it answers sooner than it wakes up."""
    tls_certificate: Path | None = None
    """PEM file with the certificate chain; with `tls_key` the API is served over TLS."""
    tls_key: Path | None = None
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
    demand_wait_s: float = Field(default=600.0, ge=0)
    """How long a request waits for a model that it wakes up."""
    max_demand_waiters: int = Field(default=256, ge=0)
    demand_ping_s: float = Field(default=5.0, gt=0)
    """A client that streams and waits for a model to wake gets a comment this often."""
    max_queue: int = Field(default=1000, ge=0)
    """Requests per model that wait for a slot; beyond it 429."""
    queue_wait_s: float = Field(default=120.0, gt=0)
    queue_wait_batch_s: float = Field(default=600.0, gt=0)
    """The same for keys of the class batch."""
    batch_handicap_s: float = Field(default=30.0, ge=0)
    """Batch requests go after interactive ones that came up to this much later."""
    replica_slots: int = Field(default=2048, ge=1)
    """Requests in flight at a replica that does not tell how many it works on at once."""
    slot_factor: float = Field(default=1.0, gt=0)
    """Requests in flight at a model per slot of its replicas; above 1 the engines queue some of them."""
    bounded_load: float = Field(default=1.25, ge=1.0)
    """prefix_affinity: how far above its share of the load a replica may be for the sake of its cache."""
    prefix_bytes: int = Field(default=16 * 1024, ge=1024)
    """prefix_affinity: how much of a conversation is looked at."""
    hedge: Literal["off", "fixed", "p95"] = "off"
    """A second attempt at another replica when an answer does not begin: after HEDGE_AFTER_S, or what 95 % took."""
    hedge_after_s: float = Field(default=1.0, gt=0)
    default_max_tokens: int = Field(default=0, ge=0)
    """Tokens of an answer whose client and model set no limit; 0 leaves it to the model's context."""
    upstream_passthrough: bool = False
    """`/upstream/{model}/…` for keys with the scopes `*` and `upstream`."""
    snapshot_path: Path | None = None
    """Where the last projection is kept for a start without NATS; `projection.snapshot` in SPOOL_DIR by default."""
    snapshot_wait_s: float = Field(default=0.3, ge=0)
    """How long a starting gateway waits for NATS before it serves from the snapshot."""
    snapshot_max_age_s: float = Field(default=86_400.0, gt=0)
    """Keys of an older snapshot are refused: nobody knows which of them were revoked since."""
    limit_wait_s: float = Field(default=2.0, gt=0)
    """How long a request waits for a share of its key's limits before this gateway judges alone."""
    limit_default_completion_tokens: int = Field(default=256, ge=1)
    """Reserved for an answer whose length the client leaves open."""
    limit_assumed_gateways: int = Field(default=4, ge=1)
    """Gateways to share limits with while NATS has not told how many there are."""
    count_timeout_s: float = Field(default=5.0, gt=0)
    """How long an engine may take to count the prompt of a client that hung up."""

    otel_endpoint: str = Field(default="", validation_alias=_standard("otel_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"))
    """Base address of an OTLP collector (HTTP); traces go to `<it>/v1/traces`. Empty: no traces. OTEL_* work, too."""
    otel_traces_endpoint: str = Field(
        default="", validation_alias=_standard("otel_traces_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    """The whole address for traces, instead."""
    otel_sampler: Sampler = Field(
        default=Sampler.PARENT_ALWAYS_ON, validation_alias=_standard("otel_sampler", "OTEL_TRACES_SAMPLER")
    )
    """`always_on`, `always_off`, `traceidratio`, or one of them after `parentbased_`."""
    otel_sampler_arg: float = Field(
        default=1.0, ge=0, le=1, validation_alias=_standard("otel_sampler_arg", "OTEL_TRACES_SAMPLER_ARG")
    )
    """The part of all traces that `traceidratio` records."""
    otel_service_name: str = Field(
        default="cortex-gateway", validation_alias=_standard("otel_service_name", "OTEL_SERVICE_NAME")
    )
    otel_disabled: bool = Field(default=False, validation_alias=_standard("otel_disabled", "OTEL_SDK_DISABLED"))

    def tracing(self) -> TracingConfig | None:
        """None: no traces."""
        endpoint = self.otel_traces_endpoint
        if not endpoint and self.otel_endpoint:
            endpoint = f"{self.otel_endpoint.rstrip('/')}/v1/traces"
        if self.otel_disabled or not endpoint:
            return None
        return TracingConfig(self.otel_service_name, self.instance, endpoint, self.otel_sampler, self.otel_sampler_arg)

    @model_validator(mode="after")
    def _tls_needs_both(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("CORTEX_GATEWAY_TLS_CERTIFICATE and CORTEX_GATEWAY_TLS_KEY belong together")
        return self
