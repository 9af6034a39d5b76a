"""Creates or updates every stream, bucket and durable. The registry is the only caller (docs/adr/0003)."""

import asyncio

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from cortex_contracts.streams import (
    BUCKETS,
    CONSUMERS,
    DAY,
    MIB,
    BucketSpec,
    ConsumerSpec,
    Retention,
    StreamSpec,
    streams,
)
from cortex_kit.logging import get_logger

log = get_logger()
PROVISION_TIMEOUT_S = 60.0


async def provision(
    js: JetStreamContext, *, events_max_age_s: float = 7 * DAY, events_max_bytes: int = 1024 * MIB, replicas: int = 1
) -> None:
    """Bring JetStream to the declared configuration. Idempotent; safe to run at any time.

    Raises:
        nats.errors.Error: the server refused or did not answer.
        TimeoutError: not finished within a minute.
    """
    async with asyncio.timeout(PROVISION_TIMEOUT_S):
        for spec in streams(events_max_age_s=events_max_age_s, events_max_bytes=events_max_bytes):
            await _apply_stream(js, stream_config(spec, replicas))
        for bucket in BUCKETS:
            await _apply_stream(js, bucket_config(bucket, replicas))
        for consumer in CONSUMERS:
            await js.add_consumer(consumer.stream, consumer_config(consumer))
    log.info("provisioned")


def stream_config(spec: StreamSpec, replicas: int = 1) -> StreamConfig:
    """The server's form of a stream specification."""
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=RetentionPolicy.WORK_QUEUE if spec.retention is Retention.WORKQUEUE else RetentionPolicy.LIMITS,
        max_age=spec.max_age_s,
        max_bytes=spec.max_bytes,
        max_msg_size=spec.max_msg_size,
        duplicate_window=spec.duplicate_window_s,
        discard=DiscardPolicy.NEW if spec.discard_new else DiscardPolicy.OLD,
        storage=StorageType.MEMORY if spec.memory else StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        max_msgs_per_subject=-1 if spec.max_per_subject is None else spec.max_per_subject,
        allow_msg_counter=True if spec.counter else None,
    )


def bucket_config(spec: BucketSpec, replicas: int = 1) -> StreamConfig:
    """A KV bucket as a stream (NATS ADR-8)."""
    return StreamConfig(
        name=f"KV_{spec.name}",
        subjects=[f"$KV.{spec.name}.>"],
        max_msgs_per_subject=1,
        max_msg_size=spec.max_value_size,
        discard=DiscardPolicy.NEW,
        storage=StorageType.MEMORY if spec.memory else StorageType.FILE,
        num_replicas=replicas,
        duplicate_window=120.0,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
        allow_msg_ttl=True if spec.ttl_per_key else None,
    )


def consumer_config(spec: ConsumerSpec) -> ConsumerConfig:
    """The server's form of a durable."""
    return ConsumerConfig(
        durable_name=spec.durable,
        filter_subject=spec.filter_subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait_s,
        max_deliver=spec.max_deliver,
        max_ack_pending=spec.max_ack_pending,
    )


async def _apply_stream(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.stream_info(config.name or "")
    except NotFoundError:
        await js.add_stream(config)
        return
    await js.update_stream(config)
