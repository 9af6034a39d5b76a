"""The one task that owns the state: observe, plan, hand out actions, again. Everything else only gives hints."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import EngineLoad, ModelDocumentV1
from cortex_contracts.enums import ReplicaState
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.kv import Change
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.attempts import Attempt
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.placement import Refused
from cortex_orchestrator.domain.plan import (
    Action,
    Adopt,
    Discard,
    Examine,
    Forget,
    GiveUp,
    Launch,
    Reject,
    Retire,
    Situation,
    plan,
)
from cortex_orchestrator.handlers.admission import Admitted, Waiting
from cortex_orchestrator.handlers.demand import DemandBook
from cortex_orchestrator.handlers.desire import Desire, Desired
from cortex_orchestrator.handlers.doubts import Doubts
from cortex_orchestrator.handlers.health import Health, HealthBook, load_of
from cortex_orchestrator.handlers.jobs import Jobs, identity_of
from cortex_orchestrator.handlers.memory import Memory, Scene
from cortex_orchestrator.handlers.outage import Outage
from cortex_orchestrator.handlers.report import Reporter, Standing
from cortex_orchestrator.handlers.searches import Searches, identity_of_key
from cortex_orchestrator.handlers.specs import SpecSource, program_key
from cortex_orchestrator.handlers.world import Timing, World
from cortex_orchestrator.metrics import EVICTIONS, RECONCILE_SECONDS
from cortex_orchestrator.ports import EngineRuntime

log = get_logger()

FAILED_JOB_PAUSE_S = 1.0
MIN_WAIT_S = 0.05
DEFAULT_STARTUP_S = 600


@dataclass(frozen=True, slots=True)
class Parts:
    """What the reconciler works with."""

    specs: SpecSource
    reporter: Reporter
    jobs: Jobs
    health: HealthBook
    demand: DemandBook
    memory: Memory


class Reconciler:
    """Level-triggered: every round starts from what is desired and what is there, never from what an event said."""

    def __init__(
        self, world: World, runtime: EngineRuntime, parts: Parts, timing: Timing, hinted: asyncio.Event
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._reporter = parts.reporter
        self._jobs = parts.jobs
        self._specs = parts.specs
        self._health = parts.health
        self._demand = parts.demand
        self._timing = timing
        self._searches = Searches(parts.specs, parts.reporter, world.clock, parts.jobs.node, self.hint)
        self._memory = parts.memory
        self._desire = Desire(parts.specs, parts.memory.admission)
        self._doubts = Doubts(world, timing.absence_grace_s)
        self._outage = Outage(parts.reporter, world.clock)
        self._hinted = hinted
        self._attempts: dict[ReplicaId, Attempt] = {}
        self._busy: dict[ReplicaId, Action] = {}
        self._engaged: dict[ReplicaId, Action] = {}
        """Busy at some time since this round began to look: what was seen of them may be over."""
        self._desired = Desired()
        self._judged = Health()
        self._wakes_at: datetime | None = None
        self._problem: str | None = "no round has been made yet"
        self._acting = False

    def hint(self) -> None:
        """Something may have changed; look soon. Cheap, callable from anywhere on the loop."""
        self._hinted.set()

    def model_changed(self, change: Change[ModelDocumentV1]) -> None:
        """A model document moved."""
        self._doubts.model_changed(change)
        self.hint()

    def reconnected(self) -> None:
        """NATS is back: write everything again, and trust no absence that began before."""
        self._doubts.reconnected()
        self._reporter.rewrite_all()
        self.hint()

    def readiness(self) -> str | None:
        return self._problem

    async def run(self) -> None:
        """Task: reconcile on every hint, and without one every `resync_s`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_runtime())
            while True:
                await self._wait()
                await self._round(group)

    async def _follow_runtime(self) -> None:
        while True:
            try:
                async for _ in self._runtime.watch():
                    self.hint()
            except TransientError as error:
                log.warning("runtime_watch_failed", error=str(error))
            await asyncio.sleep(FAILED_JOB_PAUSE_S)

    async def _wait(self) -> None:
        timeout = self._timing.resync_s
        if self._wakes_at is not None:
            timeout = min(timeout, (self._wakes_at - self._world.clock.now()).total_seconds())
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with a hint.
            async with asyncio.timeout(max(MIN_WAIT_S, timeout)):
                await self._hinted.wait()
        except TimeoutError:
            return
        finally:
            self._hinted.clear()

    async def _round(self, group: asyncio.TaskGroup) -> None:
        """One look at everything."""
        self._wakes_at = None
        if not self._may_act():
            return
        with RECONCILE_SECONDS.time():
            observed = await self._observe()
            if observed is None:
                return
            scene = self._scene(observed)
            await self._memory.look(scene, self._health, group)
            situation = self._situation(scene, group)
            made = plan(situation)
            self._wake_by(made.wake_at)
            for action in made.actions:
                if isinstance(action, Launch):
                    self._admit(action, scene, group)
                else:
                    self._execute(action, group)
            self._sweep(situation)

    async def _observe(self) -> dict[ReplicaId, Observed] | None:
        """What is there; None when the runtime cannot tell."""
        asked_at, self._engaged = self._world.clock.now(), dict(self._busy)
        try:
            found = await self._runtime.list_owned()
        except (TransientError, DomainError) as error:
            self._set_problem(str(error))
            self._outage.lost(str(error), self._world.models.items)
            return None
        self._set_problem(None)
        self._outage.seen(asked_at)
        return {seen.replica_id: seen for seen in found}

    def _wake_by(self, moment: datetime | None) -> None:
        moments = [one for one in (self._wakes_at, moment) if one is not None]
        self._wakes_at = min(moments, default=None)

    def _may_act(self) -> bool:
        held = self._world.lease.held
        if self._acting and not held:
            self._reporter.clear()
            self._attempts.clear()
            self._demand.clear()
        self._acting = held
        if not held:
            self._problem = None  # a standby is ready: it takes over by itself, and NATS has a check of its own
        return held

    def _set_problem(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("runtime_unreachable", error=problem)
        self._problem = problem

    def _scene(self, observed: Mapping[ReplicaId, Observed]) -> Scene:
        engaged = self._engaged.items()
        leaving = frozenset(replica for replica, action in engaged if isinstance(action, Retire | Discard))
        coming = frozenset(replica for replica, action in engaged if isinstance(action, Launch))
        running: dict[ModelId, dict[ReplicaId, EngineLoad | None]] = {}
        for replica, seen in observed.items():
            if seen.phase is Phase.RUNNING and replica not in leaving:
                running.setdefault(seen.identity.model_id, {})[replica] = load_of(self._world.verdicts, seen)
        self._judged = self._health.look(observed, self._world.clock.now())
        return Scene(self._world.models.items, observed, coming, leaving, self._judged.serving, running)

    def _situation(self, scene: Scene, group: asyncio.TaskGroup) -> Situation:
        now = self._world.clock.now()
        observed = scene.observed
        asleep, moment = self._demand.look(scene.models, scene.running, now)
        self._wake_by(moment)
        self._memory.consider(scene, self._health, self._demand, now)
        self._desired = desired = self._desire.of(scene, asleep)
        self._memory.keep(frozenset(desired.keys))
        self._searches.begin(desired.keys, frozenset(self._busy), group)
        vanished = self._vanished(observed)
        for attempt in self._attempts.keys() - desired.keys.keys() - observed.keys():
            del self._attempts[attempt]
        self._searches.report_waiting(desired.keys, observed)
        return Situation(
            now=now,
            wanted=desired.wanted,
            observed=observed,
            attempts=self._attempts,
            reported=frozenset(self._reporter.documents),
            started=frozenset(seen.replica_id for seen in observed.values() if self._is_reported(seen)),
            rejected=frozenset(
                document.id for document in self._reporter.documents.values() if document.state is ReplicaState.FAILED
            ),
            vanished=vanished,
            busy=frozenset(self._engaged),
            late=self._judged.late,
            farewells=desired.farewells,
            doubtful=self._doubts.of(observed, now),
        )

    def _vanished(self, observed: Mapping[ReplicaId, Observed]) -> frozenset[ReplicaId]:
        """Replicas that ran when they were seen last and that nobody here has removed."""
        gone = [
            document
            for document in self._reporter.documents.values()
            if document.state is ReplicaState.STARTED
            and document.id not in observed
            and document.id not in self._engaged
        ]
        for document in gone:
            self._jobs.vanished(document)
        return frozenset(document.id for document in gone)

    def _admit(self, launch: Launch, scene: Scene, group: asyncio.TaskGroup) -> None:
        """Launch, or say why not yet; models that give way are stopped first."""
        spec = launch.spec
        model = scene.models.get(spec.model_id)
        if model is None:
            return
        match self._memory.admission.admit(launch, model):
            case Admitted(launch=admitted):
                self._memory.fits_now(spec.replica_id)
                self._execute(admitted, group)
            case Waiting(reason=reason, evict=evict):
                identity = identity_of(spec, launch.restarts)
                self._reporter.report(Standing(identity, ReplicaState.STARTING, reason, restarts=launch.restarts))
                for victim in evict:
                    self._evict(victim, model, scene, group)
            case Refused() as refused:
                known = self._reporter.documents.get(spec.replica_id)
                told = known is not None and known.state is ReplicaState.FAILED
                if self._memory.is_news(spec.replica_id, spec.hash, refused) or not told:
                    self._jobs.refuse(identity_of(spec, launch.restarts), refused)

    def _evict(self, victim: ModelId, model: ModelDocumentV1, scene: Scene, group: asyncio.TaskGroup) -> None:
        self._demand.put_to_sleep(victim)
        self._memory.admission.leaving = True
        EVICTIONS.inc()
        log.info("model_gives_way", model_id=victim, for_model_id=model.id)
        for replica in scene.running.get(victim, {}):
            if replica not in self._engaged:
                action = Retire(scene.observed[replica], f"it gives way to {model.served_model_name}")
                self._execute(action, group)

    def _is_reported(self, seen: Observed) -> bool:
        document = self._reporter.documents.get(seen.replica_id)
        return (
            document is not None
            and document.state is ReplicaState.STARTED
            and document.spec_hash == seen.identity.spec_hash
            and document.endpoint == seen.endpoint
        )

    def _execute(self, action: Action, group: asyncio.TaskGroup) -> None:
        match action:
            case Adopt():
                self._jobs.adopt(action)
                self.hint()
            case Forget():
                self._attempts.pop(action.replica_id, None)
                self._reporter.withdraw(action.replica_id)
            case Reject():
                key = self._desired.keys.get(action.replica_id)
                if key is not None:
                    previous = self._attempts.get(action.replica_id)
                    self._attempts[action.replica_id] = self._jobs.reject(action, identity_of_key(key), previous)
            case Launch():
                replica = action.spec.replica_id
                self._begin(replica, action, self._jobs.launch(action, self._attempts.get(replica)), group)
            case Retire() | Discard() | Examine() | GiveUp():
                self._begin(action.observed.replica_id, action, self._job(action), group)
            case _:
                assert_never(action)

    def _job(self, action: Retire | Discard | Examine | GiveUp) -> Coroutine[object, object, Attempt | None]:
        seen = action.observed
        model = self._world.models.items.get(seen.identity.model_id)
        previous = self._attempts.get(seen.replica_id)
        match action:
            case Retire():
                timeout = model.stop_timeout_s if model is not None else None
                return self._jobs.retire(action, timeout, has_served=self._health.has_served(seen))
            case Discard():
                return self._jobs.discard(action)
            case Examine():
                return self._jobs.examine(action, previous, with_runtime=self._outage.explains(seen))
            case GiveUp():
                timeout = model.startup_timeout_s if model is not None else DEFAULT_STARTUP_S
                return self._jobs.give_up(action, previous, timeout)
            case _:
                assert_never(action)

    def _begin(
        self,
        replica: ReplicaId,
        action: Action,
        job: Coroutine[object, object, Attempt | None],
        group: asyncio.TaskGroup,
    ) -> None:
        self._busy[replica] = self._engaged[replica] = action
        group.create_task(self._attend(replica, job))

    async def _attend(self, replica: ReplicaId, job: Coroutine[object, object, Attempt | None]) -> None:
        """Run a job to its end and take its result over. A job that failed is planned again after a pause."""
        try:
            attempt = await job
        except (TransientError, DomainError) as error:
            log.warning("job_failed", replica_id=replica, error=str(error))
            await asyncio.sleep(FAILED_JOB_PAUSE_S)
        else:
            if attempt is None:
                self._attempts.pop(replica, None)
            else:
                self._attempts[replica] = attempt
                self._search_again(replica, attempt)
        finally:
            self._busy.pop(replica, None)
            self.hint()

    def _search_again(self, replica: ReplicaId, attempt: Attempt) -> None:
        """After a launch that failed before the engine ran, the program may not be there any more."""
        key = self._desired.keys.get(replica)
        if key is not None and attempt.next_attempt_at is not None and attempt.incarnation is None:
            self._specs.forget(program_key(key.model))

    def _sweep(self, situation: Situation) -> None:
        """Remove documents of this node that nobody stands behind, left by an orchestrator before us."""
        if situation.doubtful is None or not self._world.replicas.synced or not self._world.connected():
            return
        for replica, document in self._world.replicas.items.items():
            ours = document.node == self._jobs.node
            known = document.id in self._reporter.documents or document.id in self._busy
            if ours and not known and document.id not in situation.observed:
                log.info("stale_document_removed", replica_id=replica)
                self._reporter.withdraw(document.id)
