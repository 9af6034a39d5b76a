"""Streams, buckets and durables as data. `cortex_kit.provision` is the only code that creates or updates them."""

from dataclasses import dataclass
from enum import StrEnum

from cortex_contracts import subjects

DAY = 24 * 3600.0
MIB = 1024 * 1024


class Retention(StrEnum):
    LIMITS = "limits"
    WORKQUEUE = "workqueue"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A JetStream stream; sizes in bytes, times in seconds."""

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    max_age_s: float
    max_bytes: int
    max_msg_size: int
    duplicate_window_s: float = 600.0
    discard_new: bool = False
    memory: bool = False
    """Holds what may be lost at a restart of the server."""
    counter: bool = False
    """Each subject is a counter (NATS ADR-49)."""
    max_per_subject: int | None = None


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A KV bucket with history 1. `memory` buckets hold what is worthless after a restart."""

    name: str
    max_value_size: int = 64 * 1024
    memory: bool = False
    ttl_per_key: bool = False


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acknowledgement."""

    stream: str
    durable: str
    filter_subject: str
    ack_wait_s: float = 30.0
    max_deliver: int = 20
    max_ack_pending: int = 256


EVENTS = "EVENTS"
USAGE = "USAGE"
DLQ = "DLQ"
ADVISORIES = "ADVISORIES"
LIMITS = "RL"
BUDGETS = "BUDGETS"


def streams(*, events_max_age_s: float = 7 * DAY, events_max_bytes: int = 1024 * MIB) -> tuple[StreamSpec, ...]:
    """Every stream. The limits of EVENTS are settings of whoever provisions."""
    return (
        StreamSpec(EVENTS, subjects.EVENT_SUBJECTS, Retention.LIMITS, events_max_age_s, events_max_bytes, 256 * 1024),
        StreamSpec(
            USAGE, subjects.USAGE_SUBJECTS, Retention.WORKQUEUE, 30 * DAY, 2048 * MIB, 64 * 1024, discard_new=True
        ),
        StreamSpec(DLQ, subjects.DLQ_SUBJECTS, Retention.LIMITS, 14 * DAY, 128 * MIB, 512 * 1024),
        StreamSpec(ADVISORIES, subjects.MAX_DELIVERIES_SUBJECTS, Retention.LIMITS, 7 * DAY, 16 * MIB, 64 * 1024),
        StreamSpec(
            LIMITS,
            subjects.LIMIT_SUBJECTS,
            Retention.LIMITS,
            max_age_s=150.0,
            max_bytes=128 * MIB,
            max_msg_size=1024,
            duplicate_window_s=120.0,
            memory=True,
            counter=True,
        ),
        StreamSpec(
            BUDGETS,
            subjects.BUDGET_SUBJECTS,
            Retention.LIMITS,
            max_age_s=62 * DAY,
            max_bytes=64 * MIB,
            max_msg_size=1024,
            counter=True,
            max_per_subject=1,
        ),
    )


MODELS = BucketSpec("models")
KEYS = BucketSpec("keys")
REPLICAS = BucketSpec("replicas")
VERDICTS = BucketSpec("verdicts")
NODES = BucketSpec("nodes")
GGUF = BucketSpec("gguf", max_value_size=256 * 1024)
LEASES = BucketSpec("leases", max_value_size=4096, ttl_per_key=True)

BUCKETS = (MODELS, KEYS, REPLICAS, VERDICTS, NODES, GGUF, LEASES)

REGISTRY_USAGE = ConsumerSpec(
    USAGE, "registry-usage", "usage.recorded", ack_wait_s=60.0, max_deliver=100_000, max_ack_pending=2000
)
ORCHESTRATOR_DEMANDED = ConsumerSpec(EVENTS, "orchestrator-demanded", "model.demanded")
HEALTH_SUSPECTED = ConsumerSpec(EVENTS, "health-suspected", "upstream.suspected")
REGISTRY_EVENTS = ConsumerSpec(
    EVENTS, "registry-events", ">", ack_wait_s=60.0, max_deliver=100_000, max_ack_pending=1000
)
DEAD_LETTERS = ConsumerSpec(ADVISORIES, "dead-letters", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>")

CONSUMERS = (REGISTRY_USAGE, REGISTRY_EVENTS, ORCHESTRATOR_DEMANDED, HEALTH_SUSPECTED, DEAD_LETTERS)
