"""Metrics of the health service. Labels are closed vocabularies; replicas are not named."""

from prometheus_client import Counter, Gauge, Histogram

PROBE_SECONDS = Histogram(
    "cortex_health_probe_seconds",
    "Duration of a probe",
    ["engine_type", "outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
REPLICAS = Gauge("cortex_health_replicas", "Probed replicas by verdict", ["engine_type", "verdict"])
TRANSITIONS = Counter("cortex_health_transitions_total", "Changes of a verdict", ["engine_type", "verdict"])
SUSPICIONS = Counter(
    "cortex_health_suspicions_total", "Suspicions received, by whether they led to a probe", ["probed"]
)
UNWRITTEN = Gauge("cortex_health_unwritten", "Verdicts and events that wait for NATS")
CONFLICTS = Counter("cortex_health_conflicts_total", "Verdicts given up because another member had written")
MEMBERS = Gauge("cortex_health_members", "Instances that share the replicas, as this one sees them")
CANARIES = Counter(
    "cortex_health_canaries_total", "Real requests sent to engines that had done nothing", ["engine_type", "outcome"]
)
SCRAPES = Counter("cortex_health_scrapes_total", "Readings of engines' metrics", ["engine_type", "outcome"])
