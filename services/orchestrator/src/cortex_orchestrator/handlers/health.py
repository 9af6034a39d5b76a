"""What the health service's verdicts mean for the replicas that run here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad, VerdictDocumentV1
from cortex_contracts.enums import Verdict
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.handlers.report import Reporter
from cortex_orchestrator.handlers.world import VerdictsView, World


@dataclass(frozen=True, slots=True)
class Health:
    """Replicas that are healthy now, and those that should be by now and never were."""

    serving: frozenset[ReplicaId] = frozenset()
    late: frozenset[ReplicaId] = frozenset()


def verdict_on(verdicts: VerdictsView, seen: Observed) -> VerdictDocumentV1 | None:
    """The verdict on exactly this run."""
    verdict = verdicts.items.get(seen.replica_id)
    if verdict is None or (verdict.spec_hash, verdict.endpoint) != (seen.identity.spec_hash, seen.endpoint):
        return None
    return verdict


def load_of(verdicts: VerdictsView, seen: Observed) -> EngineLoad | None:
    """How busy a healthy replica says it is."""
    verdict = verdict_on(verdicts, seen)
    return verdict.load if verdict is not None and verdict.verdict is Verdict.HEALTHY else None


class HealthBook:
    """Remembers which runs were ever healthy and how long they took to become it.

    A replica is late only on health's word: while nobody probes, nobody is late.
    """

    def __init__(self, world: World, reporter: Reporter) -> None:
        self._world = world
        self._reporter = reporter
        self._served: dict[ReplicaId, str] = {}
        self.load_seconds: dict[str, float] = {}
        """By spec hash."""

    def look(self, observed: Mapping[ReplicaId, Observed], now: datetime) -> Health:
        """Take the present verdicts into account."""
        running = {replica: seen for replica, seen in observed.items() if seen.phase is Phase.RUNNING}
        self._served = {r: run for r, run in self._served.items() if r in running and running[r].incarnation == run}
        serving: set[ReplicaId] = set()
        late: set[ReplicaId] = set()
        for replica, seen in running.items():
            verdict = verdict_on(self._world.verdicts, seen)
            if verdict is None:
                continue
            if verdict.verdict is Verdict.HEALTHY:
                serving.add(replica)
                self._learn(seen, verdict)
            elif self._is_late(seen, now):
                late.add(replica)
        return Health(frozenset(serving), frozenset(late))

    def has_served(self, seen: Observed) -> bool:
        """Whether this run was ever healthy, so that gateways may have sent it requests."""
        if self._served.get(seen.replica_id) == seen.incarnation:
            return True
        for document in (
            self._reporter.documents.get(seen.replica_id),
            self._world.replicas.items.get(seen.replica_id),
        ):
            known = (document.spec_hash, document.endpoint) if document is not None else None
            if known == (seen.identity.spec_hash, seen.endpoint) and document is not None and document.load_seconds:
                return True
        return False

    def _learn(self, seen: Observed, verdict: VerdictDocumentV1) -> None:
        if self._served.get(seen.replica_id) != seen.incarnation:
            stored = self._world.replicas.items.get(seen.replica_id)
            seconds = stored.load_seconds if stored is not None and stored.endpoint == seen.endpoint else None
            if seconds is None and seen.started_at is not None:
                seconds = max(0.001, (verdict.since - seen.started_at).total_seconds())
            if seconds is not None:
                self.load_seconds[seen.identity.spec_hash] = seconds
            self._served[seen.replica_id] = seen.incarnation
        seconds = self.load_seconds.get(seen.identity.spec_hash)
        if seconds is not None:
            self._reporter.loaded(seen.replica_id, seen.identity.spec_hash, round(seconds, 3))

    def _is_late(self, seen: Observed, now: datetime) -> bool:
        model = self._world.models.items.get(seen.identity.model_id)
        if model is None or seen.started_at is None or not (self._world.connected() and self._world.verdicts.synced):
            return False
        waited = (now - seen.started_at).total_seconds()
        return waited > model.startup_timeout_s and not self.has_served(seen)
