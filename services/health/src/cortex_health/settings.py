"""Settings of the health service: environment variables `CORTEX_HEALTH_*`."""

import socket
from datetime import timedelta

from pydantic import Field

from cortex_health.domain.verdicts import Policy
from cortex_kit.settings import ServiceSettings


class Settings(ServiceSettings, service="health"):
    """How quickly to believe, how often to look, how long to wait."""

    port: int = Field(default=8083, ge=0, le=65535)
    unhealthy_after: int = Field(default=3, ge=1)
    """Failed probes in a row."""
    healthy_after: int = Field(default=2, ge=1)
    """Successful probes in a row, after having been unhealthy."""
    young_s: float = Field(default=900.0, gt=0)
    """How long an engine that was never healthy may be unreachable and still count as loading."""
    loading_interval_s: float = Field(default=0.25, ge=0.05)
    doubtful_interval_s: float = Field(default=0.25, ge=0.05)
    """While a verdict is about to change."""
    healthy_interval_s: float = Field(default=1.0, ge=0.05)
    unhealthy_interval_s: float = Field(default=1.0, ge=0.05)
    traffic_interval_s: float = Field(default=2.0, ge=0.05)
    """How often a healthy engine's metrics are read: how busy it is, and what is shown at /metrics."""
    draining_interval_s: float = Field(default=0.25, ge=0.05)
    """The same for an engine that is about to be stopped."""
    connect_timeout_s: float = Field(default=1.0, gt=0)
    probe_timeout_s: float = Field(default=3.0, gt=0)
    """Deadline of a whole probe; a busy engine still answers its health check."""
    test_timeout_s: float = Field(default=30.0, gt=0)
    """Deadline of the one real request that `rpc.health.test` sends."""
    canary_interval_s: float = Field(default=0.0, ge=0)
    """A healthy engine that did no work for this long is sent a real request for one token; 0: never."""
    canary_timeout_s: float = Field(default=10.0, gt=0)
    """Deadline of that request."""
    member_ttl_s: int = Field(default=3, ge=1)
    """Of several instances, one that was silent for this long has lost its replicas to the others."""
    advertise: str = ""
    """`host:port` under which Prometheus finds this instance's /metrics; empty: HOST and PORT, or the host's name."""
    sd_vllm_engines: bool = False
    """Offer vLLM engines at /sd/targets, too: their own metrics, which need no key, beside ours."""

    def policy(self) -> Policy:
        """The part that decisions need."""
        return Policy(
            unhealthy_after=self.unhealthy_after,
            healthy_after=self.healthy_after,
            young=timedelta(seconds=self.young_s),
            loading_interval_s=self.loading_interval_s,
            doubtful_interval_s=self.doubtful_interval_s,
            healthy_interval_s=self.healthy_interval_s,
            unhealthy_interval_s=self.unhealthy_interval_s,
            traffic_interval_s=self.traffic_interval_s,
            draining_interval_s=self.draining_interval_s,
            canary_interval_s=self.canary_interval_s,
        )

    def address(self) -> str:
        """Where this instance's own /metrics is."""
        if self.advertise:
            return self.advertise
        return f"{socket.gethostname() if self.host in ('0.0.0.0', '::') else self.host}:{self.port}"
