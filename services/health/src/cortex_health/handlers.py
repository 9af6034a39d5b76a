"""Probe what the orchestrator runs, judge it, say it. Level-triggered: replicas are re-read on every change and every second."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, Verdict
from cortex_contracts.events import UpstreamHealthyV1, UpstreamUnhealthyV1
from cortex_health.board import VerdictBoard
from cortex_health.domain import (
    HealthState,
    Incarnation,
    Policy,
    Transition,
    incarnation_of,
    is_draining,
    next_delay,
    resume,
    step,
    to_document,
    with_load,
    with_traffic,
)
from cortex_health.metrics import REPLICAS, SUSPICIONS, TRANSITIONS
from cortex_health.ports import Documents, Engines, Mandate
from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.events import Origin
from cortex_kit.logging import get_logger

log = get_logger()
RESYNC_S = 1.0
LOAD_ATTEMPTS = 3


@dataclass(slots=True)
class _Watch:
    """One replica under observation; owned by its probe task."""

    incarnation: Incarnation
    replica: ReplicaDocumentV1
    state: HealthState
    suspected: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    load_attempts: int = 0
    traffic_due: float = 0.0
    """On the monotonic clock."""
    origin: Origin = field(default_factory=Origin)
    """Request and event that the verdict goes back to; the event is the one that told of it."""


class Prober:
    """One probe task per started replica, while this instance holds the mandate."""

    def __init__(
        self,
        documents: Documents,
        engines: Engines,
        board: VerdictBoard,
        mandate: Mandate,
        clock: Clock,
        policy: Policy,
    ) -> None:
        self._documents = documents
        self._engines = engines
        self._board = board
        self._mandate = mandate
        self._clock = clock
        self._policy = policy
        self._watches: dict[str, _Watch] = {}
        self._changed = asyncio.Event()
        self._active = False

    def notice(self) -> None:
        """The replicas changed: look at them now."""
        self._changed.set()

    def suspect(self, replica_id: ReplicaId) -> bool:
        """Probe this replica at once. False when it is not under observation.

        Raises:
            TransientError: another instance probes; it should get the message.
        """
        if not self._mandate.held:
            raise TransientError("another instance probes")
        watch = self._watches.get(replica_id)
        SUSPICIONS.labels("yes" if watch else "no").inc()
        if watch is None:
            return False
        watch.suspected.set()
        return True

    def probe_now(self, model_id: ModelId | None) -> tuple[ReplicaId, ...] | None:
        """Probe the replicas of one model, or all, at once; None when another instance probes."""
        if not self._mandate.held:
            return None
        chosen = [watch for watch in self._watches.values() if model_id in (None, watch.replica.model_id)]
        for watch in chosen:
            watch.suspected.set()
        return tuple(watch.replica.id for watch in chosen)

    async def run(self) -> None:
        """Until cancelled. An exception of a probe task ends it: that is a bug, and the service starts anew."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._reconcile(group)
                try:
                    async with asyncio.timeout(RESYNC_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                finally:
                    self._changed.clear()

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        if not self._mandate.held or not self._documents.synced():
            self._stand_by()
            return
        if not self._active:
            self._active = True
            self._board.adopt(self._documents.verdicts())
        replicas = self._documents.replicas()
        wanted = {key: life for key, replica in replicas.items() if (life := self._life_of(replica)) is not None}
        for key, watch in tuple(self._watches.items()):
            if wanted.get(key) != watch.incarnation:
                self._stop(watch)
                if not _same_address(watch.incarnation, wanted.get(key)):
                    self._board.clear(key)
        for key, incarnation in wanted.items():
            if key in self._watches:
                watch = self._watches[key]
                if replicas[key].state is not watch.replica.state:
                    watch.suspected.set()  # it begins to drain: ask now
                watch.replica = replicas[key]
            else:
                self._start(incarnation, replicas[key], group)
        for key in self._documents.verdicts().keys() - wanted.keys():
            self._board.clear(key)
        self._count()

    def _life_of(self, replica: ReplicaDocumentV1) -> Incarnation | None:
        watch = self._watches.get(replica.id)
        if watch is not None and is_draining(replica, watch.incarnation):
            return watch.incarnation
        return incarnation_of(replica)

    def _stand_by(self) -> None:
        if not self._active:
            return
        self._active = False
        for watch in tuple(self._watches.values()):
            self._stop(watch)
        self._board.forget()
        self._count()

    def _start(self, incarnation: Incarnation, replica: ReplicaDocumentV1, group: asyncio.TaskGroup) -> None:
        stored = self._documents.verdicts().get(replica.id)
        state = resume(incarnation, stored)
        watch = _Watch(incarnation, replica, state)
        if stored is not None and state.verdict is not None:
            watch.origin = Origin(stored.correlation_id, stored.causation_id)
        self._watches[replica.id] = watch
        watch.task = group.create_task(self._follow(watch), name=f"probe-{replica.id}")
        log.info("probing_started", replica_id=replica.id, endpoint=incarnation.endpoint, resumed=state.verdict)

    def _stop(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
        del self._watches[watch.replica.id]
        log.info("probing_stopped", replica_id=watch.replica.id)

    async def _follow(self, watch: _Watch) -> None:
        while True:
            watch.suspected.clear()
            if watch.replica.state is ReplicaState.DRAINING:
                await self._follow_drain(watch)
                continue
            probe = await self._engines.probe(watch.replica)
            watch.state, transition = step(watch.state, probe, self._clock.now(), self._policy)
            if transition is not None:
                self._tell(watch, transition)
            self._show(watch)
            await self._learn_load(watch)
            await self._learn_traffic(watch)
            try:
                async with asyncio.timeout(next_delay(watch.state, self._policy)):
                    await watch.suspected.wait()
            except TimeoutError:
                continue

    def _show(self, watch: _Watch) -> None:
        document = to_document(watch.replica, watch.state, version=0)
        if document is not None:
            origin = {"correlation_id": watch.origin.correlation_id, "causation_id": watch.origin.causation_id}
            self._board.show(document.model_copy(update=origin))

    def _tell(self, watch: _Watch, transition: Transition) -> None:
        replica, verdict = watch.replica, transition.verdict
        TRANSITIONS.labels(replica.engine_type, verdict).inc()
        self._count()
        log.info(
            "verdict_changed",
            replica_id=replica.id,
            model_id=replica.model_id,
            previous=transition.previous,
            verdict=verdict,
            reason=transition.reason,
            streak=transition.streak,
        )
        if verdict is Verdict.LOADING and transition.previous is not Verdict.HEALTHY:
            return
        kind = UpstreamHealthyV1 if verdict is Verdict.HEALTHY else UpstreamUnhealthyV1
        event = kind(
            replica_id=replica.id, model_id=replica.model_id, reason=transition.reason, streak=transition.streak
        )
        cause = Origin(replica.correlation_id, replica.causation_id)
        watch.origin = Origin(replica.correlation_id, self._board.announce(event, replica.id, cause))

    async def _learn_load(self, watch: _Watch) -> None:
        """Ask a healthy engine for its capacity, a few times until it says; the verdict does not wait for it."""
        if watch.state.verdict is not Verdict.HEALTHY or watch.state.failures:
            return
        if watch.state.load.slots_total is not None or watch.load_attempts >= LOAD_ATTEMPTS:
            return
        watch.load_attempts += 1
        load = await self._engines.read_load(watch.replica)
        if load is not None:
            watch.state = with_load(watch.state, load)
            self._show(watch)

    async def _learn_traffic(self, watch: _Watch) -> None:
        """Ask a healthy engine now and then how busy it is."""
        now = self._clock.monotonic()
        if watch.state.verdict is not Verdict.HEALTHY or watch.state.failures or now < watch.traffic_due:
            return
        watch.traffic_due = now + self._policy.traffic_interval_s
        traffic = await self._engines.read_traffic(watch.replica)
        if traffic is not None and watch.replica.state is not ReplicaState.DRAINING:
            watch.state = with_traffic(watch.state, traffic)
            self._show(watch)

    async def _follow_drain(self, watch: _Watch) -> None:
        """No verdict is made of an engine that is being stopped; how busy it is decides when it may go."""
        traffic = await self._engines.read_traffic(watch.replica)
        if traffic is not None:
            watch.state = with_traffic(watch.state, traffic, self._clock.now())
            self._show(watch)
        await asyncio.sleep(self._policy.draining_interval_s)

    def _count(self) -> None:
        counts = Counter((watch.replica.engine_type, watch.state.verdict) for watch in self._watches.values())
        for engine_type in EngineType:
            for verdict in Verdict:
                REPLICAS.labels(engine_type, verdict).set(counts[engine_type, verdict])


def _same_address(old: Incarnation, new: Incarnation | None) -> bool:
    """True when the old verdict may stand until the next probe: an adopted engine must not drop out of the routing."""
    return new is not None and (old.spec_hash, old.endpoint) == (new.spec_hash, new.endpoint)
