"""Message entry points: usage records off the stream."""

from faststream.nats import NatsBroker

from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.streams import REGISTRY_USAGE
from cortex_kit.broker import durable
from cortex_registry.handlers.usage import UsageBatcher


def attach_usage(broker: NatsBroker, batcher: UsageBatcher, *, concurrency: int) -> None:
    """Consume `usage.recorded`; each message is acknowledged once its record is committed."""

    @durable(broker, REGISTRY_USAGE, concurrency=concurrency)
    async def on_usage(envelope: Envelope[UsageRecordedV1]) -> None:
        await batcher.add(envelope.data)
