"""Message entry points: usage records and events off the streams."""

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.streams import REGISTRY_EVENTS, REGISTRY_USAGE
from cortex_kit.broker import bury_part, durable
from cortex_registry.entrypoints.usage_messages import store_message
from cortex_registry.handlers.eventlog import EventBatcher
from cortex_registry.handlers.usage import UsageBatcher


def attach_usage(broker: NatsBroker, batcher: UsageBatcher, *, concurrency: int) -> None:
    """Consume `usage.recorded`; each message is acknowledged once its records are committed."""

    @durable(broker, REGISTRY_USAGE, concurrency=concurrency)
    async def on_usage(message: NatsMessage) -> None:
        raw = message.raw_message

        async def bury(part: bytes, index: int, error: Exception) -> None:
            await bury_part(broker, raw, part, index, error)

        await store_message(raw.data, batcher, bury)


def attach_events(broker: NatsBroker, batcher: EventBatcher, *, concurrency: int) -> None:
    """Consume every event; each message is acknowledged once it is in the log."""

    @durable(broker, REGISTRY_EVENTS, concurrency=concurrency)
    async def on_event(message: NatsMessage) -> None:
        await batcher.add(message.body, message.raw_message.metadata.sequence.stream)
