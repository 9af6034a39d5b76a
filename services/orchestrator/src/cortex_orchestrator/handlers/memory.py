"""Keeps the ledger up to date: measures, estimates, learns from engines, knows who could give way."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import EngineLoad, ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.asks import reported
from cortex_orchestrator.domain.demand import is_at_work
from cortex_orchestrator.domain.eviction import Candidate
from cortex_orchestrator.domain.observed import Observed
from cortex_orchestrator.domain.placement import Refused
from cortex_orchestrator.handlers.admission import Admission
from cortex_orchestrator.handlers.asks import Asks
from cortex_orchestrator.handlers.demand import DemandBook
from cortex_orchestrator.handlers.health import HealthBook
from cortex_orchestrator.handlers.ledger import Ledger
from cortex_orchestrator.ports import EngineRuntime, MachineProbe

log = get_logger()

START_OF_LOG_LINES = 5000
JUST_USED = timedelta(seconds=10)
"""What health says of an engine's load is a few seconds old: a model used since then is spared."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One round's view of what is there. `running` holds the loads of replicas that run and are not being stopped."""

    models: Mapping[str, ModelDocumentV1]
    observed: Mapping[ReplicaId, Observed]
    coming: frozenset[ReplicaId]
    leaving: frozenset[ReplicaId]
    serving: frozenset[ReplicaId]
    running: Mapping[ModelId, Mapping[ReplicaId, EngineLoad | None]]


class Memory:
    """Everything that decides on memory, once a round."""

    def __init__(
        self, probe: MachineProbe, runtime: EngineRuntime, asks: Asks, ledger: Ledger, admission: Admission
    ) -> None:
        self._probe = probe
        self._runtime = runtime
        self._asks = asks
        self._ledger = ledger
        self.admission = admission
        self._read: dict[ReplicaId, str] = {}
        self._refused: dict[ReplicaId, tuple[str, int]] = {}
        self.promised: dict[str, int] = {}
        """Bytes by device; replaced whole, so that any thread may read it."""

    async def look(self, scene: Scene, health: HealthBook, group: asyncio.TaskGroup) -> None:
        """Bring the ledger to what is there now."""
        machine = await self._probe.measure()
        served = {replica for replica, seen in scene.observed.items() if health.has_served(seen)}
        self._ledger.open(machine, scene.models, scene.observed, scene.coming, scene.serving | served)
        self._asks.begin(_running(scene.models), group, has_gpus=self._ledger.has_gpus)
        self._learn(scene, group)
        known = frozenset(scene.observed) | scene.coming
        self.admission.leaving = bool(scene.leaving)
        self.admission.forget(known | frozenset(self._refused))
        self.promised = self._ledger.promised_memory()

    def consider(self, scene: Scene, health: HealthBook, demand: DemandBook, now: datetime) -> None:
        """Who could give way, after this round's word on who sleeps."""
        candidates: list[Candidate] = []
        for model in scene.models.values():
            loads = scene.running.get(model.id)
            if model.lifecycle is not Lifecycle.ON_DEMAND or not loads:
                continue
            usage = demand.usage(model.id)
            hashes = [scene.observed[replica].identity.spec_hash for replica in loads]
            load_seconds = [health.load_seconds[one] for one in hashes if one in health.load_seconds]
            just_used = usage is not None and now - usage.used_at < JUST_USED
            candidates.append(
                Candidate(
                    model.id,
                    tuple(sorted(loads)),
                    max(load_seconds, default=None),
                    demand.recent_demands(model.id, now),
                    at_work=just_used or any(is_at_work(load) for load in loads.values()),
                )
            )
        self.admission.candidates = tuple(candidates)

    def is_news(self, replica: ReplicaId, spec_hash: str, refused: Refused) -> bool:
        """Whether this refusal has not been told yet."""
        key = (spec_hash, refused.asked)
        if self._refused.get(replica) == key:
            return False
        self._refused[replica] = key
        return True

    def fits_now(self, replica: ReplicaId) -> None:
        """A later refusal is news again."""
        self._refused.pop(replica, None)

    def keep(self, wanted: frozenset[ReplicaId]) -> None:
        """Forget refusals of replicas that nobody wants."""
        self._refused = {replica: key for replica, key in self._refused.items() if replica in wanted}

    def _learn(self, scene: Scene, group: asyncio.TaskGroup) -> None:
        self._read = {replica: run for replica, run in self._read.items() if replica in scene.observed}
        for replica in scene.serving:
            seen = scene.observed[replica]
            if self._read.get(replica) != seen.incarnation:
                self._read[replica] = seen.incarnation
                group.create_task(self._read_report(seen))
        self._asks.forget(frozenset(seen.identity.spec_hash for seen in scene.observed.values()))

    async def _read_report(self, seen: Observed) -> None:
        try:
            lines = await self._runtime.logs(seen.replica_id, START_OF_LOG_LINES)
        except (TransientError, DomainError) as error:
            log.debug("report_not_read", replica_id=seen.replica_id, error=str(error))
            return
        found = reported(seen.identity.engine_type, lines)
        if found is not None:
            self._asks.report(seen.identity.spec_hash, found)
            log.info("memory_reported", replica_id=seen.replica_id, host=found.host, gpu=found.gpu)


def _running(models: Mapping[str, ModelDocumentV1]) -> dict[ModelId, ModelDocumentV1]:
    return {
        model.id: model
        for model in models.values()
        if model.desired_state is DesiredState.RUNNING and not model.external
    }
