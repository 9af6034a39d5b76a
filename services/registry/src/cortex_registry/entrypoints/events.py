"""Message entry points: usage records and events off the streams."""

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.streams import REGISTRY_EVENTS, REGISTRY_USAGE
from cortex_kit.broker import durable
from cortex_registry.handlers.eventlog import EventBatcher
from cortex_registry.handlers.usage import UsageBatcher


def attach_usage(broker: NatsBroker, batcher: UsageBatcher, *, concurrency: int) -> None:
    """Consume `usage.recorded`; each message is acknowledged once its record is committed."""

    @durable(broker, REGISTRY_USAGE, concurrency=concurrency)
    async def on_usage(envelope: Envelope[UsageRecordedV1]) -> None:
        await batcher.add(envelope.data)


def attach_events(broker: NatsBroker, batcher: EventBatcher, *, concurrency: int) -> None:
    """Consume every event; each message is acknowledged once it is in the log."""

    @durable(broker, REGISTRY_EVENTS, concurrency=concurrency)
    async def on_event(message: NatsMessage) -> None:
        await batcher.add(message.body, message.raw_message.metadata.sequence.stream)
