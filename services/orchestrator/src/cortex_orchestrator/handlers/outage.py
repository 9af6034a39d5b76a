"""What is said while the runtime cannot be reached, and what it explains afterwards."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle, ReplicaState
from cortex_kit.clock import Clock
from cortex_orchestrator.domain.observed import Observed
from cortex_orchestrator.domain.spec import ReplicaKey
from cortex_orchestrator.handlers.report import Reporter, Standing
from cortex_orchestrator.handlers.searches import identity_of_key

CLOCKS = timedelta(seconds=1)
"""How far the runtime's clock may be from ours."""


class Outage:
    """Nothing is observed while the runtime is away: documents keep their state and say so.

    A container engine takes its containers along when it is stopped. An end that falls between the last look that
    succeeded and the first one afterwards is told as that.
    """

    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter = reporter
        self._clock = clock
        self._looked_at: datetime | None = None
        self._trouble: str | None = None
        self._last: tuple[datetime, datetime] | None = None

    def seen(self, asked_at: datetime) -> None:
        """The runtime told what is there; it was asked at this moment."""
        if self._trouble is not None:
            self._last = (self._looked_at or asked_at, self._clock.now())
            self._trouble = None
        self._looked_at = asked_at
        self._reporter.trouble(None)

    def lost(self, error: str, models: Mapping[str, ModelDocumentV1]) -> None:
        """The runtime could not be asked."""
        now = self._clock.now()
        if self._looked_at is None:
            self._looked_at = now
        if self._trouble is None:
            self._trouble = f"nothing can be seen, started or stopped on this node since {now:%H:%M:%S} UTC: {error}"
        known = {document.model_id for document in self._reporter.documents.values()}
        for model in models.values():
            if model.id not in known and _is_due(model):
                self._announce(model)
        self._reporter.trouble(self._trouble)

    def explains(self, seen: Observed) -> bool:
        """Whether the replica ended while the runtime was away."""
        if self._last is None or seen.finished_at is None:
            return False
        began, ended = self._last
        return began - CLOCKS <= seen.finished_at <= ended + CLOCKS

    def _announce(self, model: ModelDocumentV1) -> None:
        for ordinal in range(model.replicas):
            identity = identity_of_key(ReplicaKey(model, ordinal))
            self._reporter.report(
                Standing(identity, ReplicaState.STARTING, "it is started as soon as that is possible")
            )


def _is_due(model: ModelDocumentV1) -> bool:
    runs = model.desired_state is DesiredState.RUNNING and not model.external
    return runs and model.lifecycle is not Lifecycle.ON_DEMAND
