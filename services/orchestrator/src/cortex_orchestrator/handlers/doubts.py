"""When the absence of a model is an order to stop its engines, and when it may be an accident of the store."""

from collections.abc import Mapping
from datetime import datetime

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_kit.kv import Change
from cortex_orchestrator.domain.observed import Observed
from cortex_orchestrator.domain.plan import Absences
from cortex_orchestrator.handlers.world import World


class Doubts:
    """An absent model proves nothing while the view is not live, and little right after a store was emptied."""

    def __init__(self, world: World, grace_s: float) -> None:
        self._world = world
        self._grace_s = grace_s
        self._absences = Absences()
        self._deleted: frozenset[ModelId] = frozenset()

    def model_changed(self, change: Change[ModelDocumentV1]) -> None:
        """A deletion that was seen happening is an order; a mere absence is not."""
        if change.new is None and change.live:
            self._deleted |= {ModelId(change.key)}

    def reconnected(self) -> None:
        """Trust no absence that began before."""
        self._absences = Absences()

    def of(self, observed: Mapping[ReplicaId, Observed], now: datetime) -> frozenset[ModelId] | None:
        """Models to leave alone for now; None: all that are absent."""
        if not self._world.models.synced:
            return None
        present = self._world.models.items
        absent = frozenset(
            seen.identity.model_id for seen in observed.values() if seen.identity.model_id not in present
        )
        if not self._world.connected():
            self._absences = Absences()
            return absent
        self._deleted &= absent
        self._absences = self._absences.observe(absent - self._deleted, now)
        return self._absences.doubtful(now, self._grace_s)
