"""Metrics of the orchestrator. Label values come from closed sets only."""

from prometheus_client import Counter, Gauge, Histogram

LAUNCHES = Counter(
    "cortex_orchestrator_launches_total", "Engines launched, by engine and outcome", ["engine", "outcome"]
)
FAILURES = Counter(
    "cortex_orchestrator_engine_failures_total",
    "Engines that failed, by diagnosis (domain.diagnosis.CODES, startup_timeout, unknown)",
    ["engine_type", "code"],
)
REJECTIONS = Counter("cortex_orchestrator_placement_rejections_total", "Replicas for which there was no room")
EVICTIONS = Counter("cortex_orchestrator_evictions_total", "Models on demand that gave way to another one")
REPLICAS = Gauge("cortex_orchestrator_replicas", "Replicas of this node, by state", ["state"])
RECONCILE_SECONDS = Histogram("cortex_orchestrator_reconcile_seconds", "Time to observe, plan and hand out actions")
UNSENT = Gauge("cortex_orchestrator_unsent", "Documents and events waiting for NATS", ["kind"])
DROPPED_EVENTS = Counter("cortex_orchestrator_dropped_events_total", "Events dropped because NATS stayed away too long")
LOG_FOLLOWS = Gauge("cortex_orchestrator_log_follows", "Live logs that are being read")
LOG_LINES_SKIPPED = Counter(
    "cortex_orchestrator_log_lines_skipped_total", "Lines of live logs dropped because a reader was too slow"
)
