"""Consumes `upstream.suspected`."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.base import ReplicaId
from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.streams import HEALTH_SUSPECTED
from cortex_health.handlers import Prober
from cortex_kit.broker import durable
from cortex_kit.clock import Clock

Forward = Callable[[ReplicaId], Awaitable[None]]
"""Hand a suspicion to the member that probes the replica; raises TransientError when none took it."""
STALE = timedelta(seconds=15)


def register(broker: NatsBroker, prober: Prober, forward: Forward, clock: Clock) -> None:
    """Probe at once if the replica is ours, else hand the suspicion on.

    The members share one durable, so that each suspicion comes to one of them, and goes to another one if that dies. One
    that is older than many probes is dropped.
    """

    @durable(broker, HEALTH_SUSPECTED)
    async def suspected(message: NatsMessage) -> None:  # pyright: ignore[reportUnusedFunction] - FastStream keeps it
        envelope = Envelope[UpstreamSuspectedV1].model_validate_json(message.body)
        replica_id = envelope.data.replica_id
        if clock.now() - envelope.time > STALE:
            return
        if not prober.suspect(replica_id) and prober.runs(replica_id):
            await forward(replica_id)
