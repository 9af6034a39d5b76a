"""Best-effort events that ask other services to look: rate-limited here, published by one background task."""

import asyncio
from collections.abc import Callable

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.events import Event, ModelDemandedV1, UpstreamSuspectedV1
from cortex_gateway.domain.routing import Route
from cortex_kit.events import EventPublisher

SUSPECT_EVERY_S = 1.0
DEMAND_EVERY_S = 5.0
MAX_QUEUED = 256
MAX_REMEMBERED = 10_000


class HintQueue:
    """See `ports.Hints`."""

    def __init__(self, publisher: EventPublisher, now: Callable[[], float]) -> None:
        self._publisher = publisher
        self._now = now
        self._queue: asyncio.Queue[tuple[str, Event]] = asyncio.Queue(MAX_QUEUED)
        self._last: dict[str, float] = {}

    def suspect(self, replica_id: ReplicaId, model_id: ModelId, reason: str) -> None:
        if self._due(f"suspect/{replica_id}", SUSPECT_EVERY_S):
            event = UpstreamSuspectedV1(replica_id=replica_id, model_id=model_id, reason=reason[:500])
            self._queue.put_nowait((replica_id, event))

    def demand(self, route: Route) -> None:
        model = route.model
        if self._due(f"demand/{model.id}", DEMAND_EVERY_S):
            event = ModelDemandedV1(model_id=model.id, served_model_name=model.served_model_name)
            self._queue.put_nowait((model.id, event))

    async def run(self) -> None:
        """Publish what is queued; a task of the service. A hint that fails is not repeated: its cause will be."""
        while True:
            aggregate_id, event = await self._queue.get()
            await self._publisher.try_publish(event, aggregate_id=aggregate_id)

    def _due(self, what: str, every_s: float) -> bool:
        now = self._now()
        if self._queue.full() or now - self._last.get(what, -every_s) < every_s:
            return False
        if len(self._last) >= MAX_REMEMBERED:
            self._last.clear()
        self._last[what] = now
        return True
