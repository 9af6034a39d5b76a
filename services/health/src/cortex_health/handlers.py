"""Probe this member's share of what the orchestrator runs, judge it, say it.

Level-triggered: replicas and members are looked at again on every change and every second.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, Verdict
from cortex_contracts.events import UpstreamHealthyV1, UpstreamUnhealthyV1
from cortex_health.board import VerdictBoard
from cortex_health.domain.engine_metrics import worked_between
from cortex_health.domain.verdicts import (
    HealthState,
    Incarnation,
    Outcome,
    Policy,
    Transition,
    draining_life,
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
from cortex_health.ports import Documents, Engines, Exporter, Shares
from cortex_kit.clock import Clock
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
    proven_at: float = 0.0
    """When the engine did real work last, as far as we saw; on the monotonic clock."""
    origin: Origin = field(default_factory=Origin)
    """Request and event that the verdict goes back to; the event is the one that told of it."""


@dataclass(frozen=True, slots=True)
class World:
    """What the prober works with."""

    documents: Documents
    engines: Engines
    shares: Shares
    exporter: Exporter
    clock: Clock


class Prober:
    """One probe task per started replica that is this member's."""

    def __init__(self, world: World, board: VerdictBoard, policy: Policy) -> None:
        self._documents = world.documents
        self._engines = world.engines
        self._shares = world.shares
        self._exporter = world.exporter
        self._clock = world.clock
        self._board = board
        self._policy = policy
        self._watches: dict[str, _Watch] = {}
        self._changed = asyncio.Event()
        board.on_conflict(self._on_conflict)

    def notice(self) -> None:
        """The replicas or the members changed: look at them now."""
        self._changed.set()

    def suspect(self, replica_id: ReplicaId) -> bool:
        """Probe this replica at once. False when this member does not look after it."""
        watch = self._watches.get(replica_id)
        SUSPICIONS.labels("yes" if watch else "no").inc()
        if watch is None:
            return False
        watch.suspected.set()
        return True

    def runs(self, replica_id: ReplicaId) -> bool:
        """Whether there is such a replica for anybody to probe."""
        replica = self._documents.replicas().get(replica_id)
        return replica is not None and incarnation_of(replica) is not None

    def probe_now(self, model_id: ModelId | None) -> tuple[ReplicaId, ...] | None:
        """Probe this member's replicas of one model, or of all. All that are probed by now, by every member, if it is this
        member's turn to say so; else None."""
        for watch in self._watches.values():
            if model_id in (None, watch.replica.model_id):
                watch.suspected.set()
        if not self._shares.mine(f"probe/{model_id or ''}"):
            return None
        return tuple(
            replica.id
            for replica in self._documents.replicas().values()
            if model_id in (None, replica.model_id) and incarnation_of(replica) is not None
        )

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
        if not self._shares.ready or not self._documents.synced():
            return
        replicas, stored = self._documents.replicas(), self._documents.verdicts()
        lives = self._lives(replicas, stored)
        for watch in tuple(self._watches.values()):
            self._let_go(watch, lives.get(watch.replica.id))
        for key, incarnation in lives.items():
            if key in self._watches:
                self._refresh(self._watches[key], replicas[key])
            elif self._shares.mine(key):
                self._start(incarnation, replicas[key], stored.get(key), group)
        for key in stored.keys() - lives.keys():
            if self._shares.mine(key):
                self._board.clear(key)
        self._count()

    def _lives(
        self, replicas: Mapping[str, ReplicaDocumentV1], stored: Mapping[str, VerdictDocumentV1]
    ) -> dict[str, Incarnation]:
        """What there is to look at, whoever does so."""
        found: dict[str, Incarnation] = {}
        for key, replica in replicas.items():
            watch = self._watches.get(key)
            if watch is not None and is_draining(replica, watch.incarnation):
                found[key] = watch.incarnation
            elif (life := incarnation_of(replica) or draining_life(replica, stored.get(key))) is not None:
                found[key] = life
        return found

    @staticmethod
    def _refresh(watch: _Watch, replica: ReplicaDocumentV1) -> None:
        if replica.state is not watch.replica.state:
            watch.suspected.set()  # it begins to drain: ask now
        watch.replica = replica

    def _let_go(self, watch: _Watch, life: Incarnation | None) -> None:
        """End the watch if the replica is another's now, or no longer the one that was watched."""
        if not self._shares.mine(watch.replica.id):
            self._hand_over(watch)
        elif life != watch.incarnation:
            self._stop(watch)
            if not _same_address(watch.incarnation, life):
                self._board.clear(watch.replica.id)

    def _hand_over(self, watch: _Watch) -> None:
        """Another member goes on from the stored verdict."""
        self._stop(watch)
        self._board.forget(watch.replica.id)

    def _on_conflict(self, replica_id: str, stored: VerdictDocumentV1) -> None:
        """Another member wrote of our replica: leave it to that one if it goes before us, else go on from what it wrote."""
        watch = self._watches.get(replica_id)
        if watch is None:
            return
        if stored.prober is not None and self._shares.contest(replica_id, stored.prober):
            self._hand_over(watch)
            return
        watch.state = resume(watch.incarnation, stored)
        watch.suspected.set()

    def _start(
        self,
        incarnation: Incarnation,
        replica: ReplicaDocumentV1,
        stored: VerdictDocumentV1 | None,
        group: asyncio.TaskGroup,
    ) -> None:
        state = resume(incarnation, stored)
        watch = _Watch(incarnation, replica, state, proven_at=self._clock.monotonic())
        if stored is not None and state.verdict is not None:
            watch.origin = Origin(stored.correlation_id, stored.causation_id)
        self._board.begin(replica.id, stored)
        self._watches[replica.id] = watch
        watch.task = group.create_task(self._follow(watch), name=f"probe-{replica.id}")
        log.info("probing_started", replica_id=replica.id, endpoint=incarnation.endpoint, resumed=state.verdict)

    def _stop(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
        del self._watches[watch.replica.id]
        self._exporter.drop(watch.replica.id)
        log.info("probing_stopped", replica_id=watch.replica.id)

    async def _follow(self, watch: _Watch) -> None:
        while True:
            suspected = watch.suspected.is_set()
            watch.suspected.clear()
            if watch.replica.state is ReplicaState.DRAINING:
                await self._follow_drain(watch)
                continue
            probe = await self._engines.probe(watch.replica)
            if probe.outcome is Outcome.OK and self._needs_proof(watch):
                watch.proven_at = self._clock.monotonic()
                probe = await self._engines.prove(watch.replica) or probe
            now = self._clock.now()
            watch.state, transition = step(watch.state, probe, now, self._policy, suspected=suspected)
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

    def _needs_proof(self, watch: _Watch) -> bool:
        """Whether it is time for a real request: a healthy engine that has done nothing for long, or one in doubt."""
        interval = self._policy.canary_interval_s
        if interval <= 0:
            return False
        if watch.state.verdict is not Verdict.HEALTHY or watch.state.failures:
            return True
        return self._clock.monotonic() - watch.proven_at >= interval

    def _show(self, watch: _Watch) -> None:
        document = to_document(watch.replica, watch.state, version=0)
        if document is not None:
            origin = {"correlation_id": watch.origin.correlation_id, "causation_id": watch.origin.causation_id}
            self._board.show(document.model_copy(update=origin))
        self._exporter.show(watch.replica, watch.state)

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
        if watch.state.load.context_per_slot is not None or watch.load_attempts >= LOAD_ATTEMPTS:
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
        await self._sample(watch)

    async def _sample(self, watch: _Watch, *, draining: bool = False) -> None:
        sample = await self._engines.read_sample(watch.replica)
        self._exporter.sampled(watch.replica, sample)
        if sample is None:
            return
        if worked_between(watch.state.load, sample.load):
            watch.proven_at = self._clock.monotonic()
        if watch.replica.state is ReplicaState.DRAINING and not draining:
            return  # read before the drain began
        watch.state = with_traffic(watch.state, sample.load, self._clock.now() if draining else None)
        self._show(watch)

    async def _follow_drain(self, watch: _Watch) -> None:
        """No verdict is made of an engine that is being stopped; how busy it is decides when it may go."""
        await self._sample(watch, draining=True)
        await asyncio.sleep(self._policy.draining_interval_s)

    def _count(self) -> None:
        counts = Counter((watch.replica.engine_type, watch.state.verdict) for watch in self._watches.values())
        for engine_type in EngineType:
            for verdict in Verdict:
                REPLICAS.labels(engine_type, verdict).set(counts[engine_type, verdict])


def _same_address(old: Incarnation, new: Incarnation | None) -> bool:
    """True when the old verdict may stand until the next probe: an adopted engine must not drop out of the routing."""
    return new is not None and (old.spec_hash, old.endpoint) == (new.spec_hash, new.endpoint)
