"""Settings of the health service: environment variables `CORTEX_HEALTH_*`."""

from datetime import timedelta

from pydantic import Field

from cortex_health.domain import Policy
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
    traffic_interval_s: float = Field(default=5.0, ge=0.05)
    """How often a healthy engine is asked how busy it is."""
    draining_interval_s: float = Field(default=0.25, ge=0.05)
    """The same for an engine that is about to be stopped."""
    connect_timeout_s: float = Field(default=1.0, gt=0)
    probe_timeout_s: float = Field(default=3.0, gt=0)
    """Deadline of a whole probe; a busy engine still answers its health check."""
    test_timeout_s: float = Field(default=30.0, gt=0)
    """Deadline of the one real request that `rpc.health.test` sends."""
    lease_ttl_s: int = Field(default=5, ge=1)

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
        )
