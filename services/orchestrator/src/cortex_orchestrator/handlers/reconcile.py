"""The one task that owns the state: observe, plan, hand out actions, again. Everything else only gives hints."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import assert_never

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import ReplicaState
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.kv import Change
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.attempts import Attempt
from cortex_orchestrator.domain.observed import Observed
from cortex_orchestrator.domain.plan import (
    Absences,
    Action,
    Adopt,
    Discard,
    Examine,
    Forget,
    Launch,
    Reject,
    Retire,
    Situation,
    plan,
)
from cortex_orchestrator.domain.spec import ReplicaKey, wanted_replicas
from cortex_orchestrator.handlers.jobs import Jobs
from cortex_orchestrator.handlers.report import Reporter
from cortex_orchestrator.handlers.searches import Searches, identity_of_key
from cortex_orchestrator.handlers.specs import SpecSource, program_key
from cortex_orchestrator.handlers.world import Timing, World
from cortex_orchestrator.metrics import RECONCILE_SECONDS
from cortex_orchestrator.ports import EngineRuntime

log = get_logger()

FAILED_JOB_PAUSE_S = 1.0
MIN_WAIT_S = 0.05


class Reconciler:
    """Level-triggered: every round starts from what is desired and what is there, never from what an event said."""

    def __init__(
        self,
        world: World,
        runtime: EngineRuntime,
        specs: SpecSource,
        reporter: Reporter,
        jobs: Jobs,
        timing: Timing,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._reporter = reporter
        self._jobs = jobs
        self._timing = timing
        self._specs = specs
        self._hinted = asyncio.Event()
        self._attempts: dict[ReplicaId, Attempt] = {}
        self._busy: set[ReplicaId] = set()
        self._searches = Searches(specs, reporter, world.clock, jobs.node, self.hint)
        self._absences = Absences()
        self._deleted: frozenset[ModelId] = frozenset()
        self._problem: str | None = "no round has been made yet"
        self._acting = False

    def hint(self) -> None:
        """Something may have changed; look soon. Cheap, callable from anywhere on the loop."""
        self._hinted.set()

    def model_changed(self, change: Change[ModelDocumentV1]) -> None:
        """A model document moved. A deletion that was seen happening is an order; a mere absence is not."""
        if change.new is None and change.live:
            self._deleted |= {ModelId(change.key)}
        self.hint()

    def reconnected(self) -> None:
        """NATS is back: write everything again, and trust no absence that began before."""
        self._absences = Absences()
        self._reporter.rewrite_all()
        self.hint()

    def readiness(self) -> str | None:
        return self._problem

    async def run(self) -> None:
        """Task: reconcile on every hint, and without one every `resync_s`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_runtime())
            wake_at: datetime | None = None
            while True:
                await self._wait(wake_at)
                wake_at = await self._round(group)

    async def _follow_runtime(self) -> None:
        while True:
            try:
                async for _ in self._runtime.watch():
                    self.hint()
            except TransientError as error:
                log.warning("runtime_watch_failed", error=str(error))
            await asyncio.sleep(FAILED_JOB_PAUSE_S)

    async def _wait(self, wake_at: datetime | None) -> None:
        timeout = self._timing.resync_s
        if wake_at is not None:
            timeout = min(timeout, (wake_at - self._world.clock.now()).total_seconds())
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with a hint.
            async with asyncio.timeout(max(MIN_WAIT_S, timeout)):
                await self._hinted.wait()
        except TimeoutError:
            return
        finally:
            self._hinted.clear()

    async def _round(self, group: asyncio.TaskGroup) -> datetime | None:
        """One look at everything; returns when to look again for the sake of a backoff."""
        if not self._may_act():
            return None
        with RECONCILE_SECONDS.time():
            try:
                observed = {seen.replica_id: seen for seen in await self._runtime.list_owned()}
            except TransientError as error:
                self._set_problem(str(error))
                return None
            self._set_problem(None)
            situation = self._situation(observed, group)
            made = plan(situation)
            for action in made.actions:
                self._execute(action, group)
            self._sweep(situation)
        return made.wake_at

    def _may_act(self) -> bool:
        held = self._world.lease.held
        if self._acting and not held:
            self._reporter.clear()
            self._attempts.clear()
        self._acting = held
        if not held:
            self._problem = "another orchestrator of this node holds the lease, or NATS has not been reached"
        return held

    def _set_problem(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("runtime_unreachable", error=problem)
        self._problem = problem

    def _situation(self, observed: Mapping[ReplicaId, Observed], group: asyncio.TaskGroup) -> Situation:
        now = self._world.clock.now()
        keys = self._keys()
        self._searches.begin(keys, frozenset(self._busy), group)
        for attempt in self._attempts.keys() - keys.keys() - observed.keys():
            del self._attempts[attempt]
        self._searches.report_waiting(keys, observed)
        return Situation(
            now=now,
            wanted=self._specs.wanted(keys),
            observed=observed,
            attempts=self._attempts,
            reported=frozenset(self._reporter.documents),
            started=frozenset(seen.replica_id for seen in observed.values() if self._is_reported(seen)),
            busy=frozenset(self._busy),
            doubtful=self._doubtful(observed, now),
        )

    def _is_reported(self, seen: Observed) -> bool:
        document = self._reporter.documents.get(seen.replica_id)
        return (
            document is not None
            and document.state is ReplicaState.STARTED
            and document.spec_hash == seen.identity.spec_hash
            and document.endpoint == seen.endpoint
        )

    def _keys(self) -> dict[ReplicaId, ReplicaKey]:
        return wanted_replicas(self._world.models.items)

    def _doubtful(self, observed: Mapping[ReplicaId, Observed], now: datetime) -> frozenset[ModelId] | None:
        """An absent model proves nothing while the view is not live, and little right after a store was emptied."""
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
        return self._absences.doubtful(now, self._timing.absence_grace_s)

    def _execute(self, action: Action, group: asyncio.TaskGroup) -> None:
        match action:
            case Adopt():
                self._jobs.adopt(action)
                self.hint()
            case Forget():
                self._attempts.pop(action.replica_id, None)
                self._reporter.withdraw(action.replica_id)
            case Reject():
                key = self._keys().get(action.replica_id)
                if key is not None:
                    previous = self._attempts.get(action.replica_id)
                    self._attempts[action.replica_id] = self._jobs.reject(action, identity_of_key(key), previous)
            case Launch():
                replica = action.spec.replica_id
                self._begin(replica, self._jobs.launch(action, self._attempts.get(replica)), group)
            case Retire():
                model = self._world.models.items.get(action.observed.identity.model_id)
                timeout = model.stop_timeout_s if model is not None else None
                self._begin(action.observed.replica_id, self._jobs.retire(action, timeout), group)
            case Discard():
                self._begin(action.observed.replica_id, self._jobs.discard(action), group)
            case Examine():
                replica = action.observed.replica_id
                self._begin(replica, self._jobs.examine(action, self._attempts.get(replica)), group)
            case _:
                assert_never(action)

    def _begin(
        self, replica: ReplicaId, job: Coroutine[object, object, Attempt | None], group: asyncio.TaskGroup
    ) -> None:
        self._busy.add(replica)
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
            self._busy.discard(replica)
            self.hint()

    def _search_again(self, replica: ReplicaId, attempt: Attempt) -> None:
        """After a launch that failed before the engine ran, the program may not be there any more."""
        key = self._keys().get(replica)
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
