"""Prometheus metrics of the registry; label values come from bounded sets."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("cortex_registry_requests_total", "Admin requests", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("cortex_registry_request_seconds", "Duration of admin requests", ["route"])
RELAY_LEADER = Gauge("cortex_registry_relay_leader", "1 while this instance relays the outbox")
OUTBOX_ROWS = Gauge("cortex_registry_outbox_rows", "Events committed but not published yet (0 on a standby)")
OUTBOX_AGE = Gauge("cortex_registry_outbox_age_seconds", "Age of the oldest unpublished event (0 on a standby)")
RELAYED = Counter("cortex_registry_outbox_relayed_total", "Events published from the outbox", ["subject"])
REPUBLISHED = Counter("cortex_registry_republished_total", "Comparisons of KV with Postgres", ["reason"])
MIRROR_WRITES = Counter(
    "cortex_registry_kv_writes_total", "KV documents written or deleted", ["aggregate", "operation"]
)
USAGE_INSERTED = Counter("cortex_registry_usage_rows_inserted_total", "Usage records stored")
USAGE_REPEATED = Counter("cortex_registry_usage_rows_repeated_total", "Usage records that were there already")
STATE_CHANGES = Counter("cortex_registry_state_changes_total", "Announced changes of a model's state", ["state"])
EVENTS_LOGGED = Counter("cortex_registry_events_logged_total", "Events stored in the event log")
EVENT_STREAMS = Gauge("cortex_registry_event_streams", "Clients of the live stream of events")
EVENT_STREAMS_ENDED = Counter("cortex_registry_event_streams_ended_total", "Ended live streams", ["reason"])
WEBHOOK_DISPATCHER = Gauge("cortex_registry_webhook_dispatcher", "1 while this instance delivers to webhooks")
WEBHOOK_ATTEMPTS = Counter("cortex_registry_webhook_attempts_total", "Requests to webhooks", ["outcome"])
WEBHOOK_SECONDS = Histogram("cortex_registry_webhook_seconds", "Duration of requests to webhooks")
