"""Consumes `upstream.suspected`."""

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.streams import HEALTH_SUSPECTED
from cortex_health.handlers import Prober
from cortex_kit.broker import durable


def register(broker: NatsBroker, prober: Prober) -> None:
    """Hand every suspicion to the prober."""

    @durable(broker, HEALTH_SUSPECTED)
    async def suspected(message: NatsMessage) -> None:  # pyright: ignore[reportUnusedFunction] - FastStream keeps it
        envelope = Envelope[UpstreamSuspectedV1].model_validate_json(message.body)
        prober.suspect(envelope.data.replica_id)
