"""The long actions of a plan, each on one replica: act on the runtime, report what was observed."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.enums import EngineType, ReplicaState
from cortex_contracts.events import (
    ContainerAdoptedV1,
    ContainerCreatedV1,
    ContainerFailedV1,
    ContainerRemovedV1,
    ContainerStartedV1,
    ContainerStoppedV1,
)
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.attempts import Attempt, BackoffPolicy, after_failure
from cortex_orchestrator.domain.diagnosis import diagnose
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.domain.observed import Exit, Identity, Observed, Phase
from cortex_orchestrator.domain.plan import Adopt, Discard, Examine, Launch, Reject, Retire
from cortex_orchestrator.domain.spec import ContainerSpec
from cortex_orchestrator.handlers.report import Reporter, Standing
from cortex_orchestrator.metrics import FAILURES, LAUNCHES
from cortex_orchestrator.ports import EngineRuntime

log = get_logger()

FLUSH_TIMEOUT_S = 1.0
DIAGNOSIS_LINES = 200
LOG_TAIL_LINES = 40
LOG_LINE_CHARACTERS = 500
"""An event has a size limit, and an engine may print a whole prompt on one line."""


class _Common(TypedDict):
    replica_id: ReplicaId
    model_id: ModelId
    ordinal: int
    engine_type: EngineType
    node: NodeId
    spec_hash: str


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How jobs take their time. `secrets_of` gives a replica's environment that must not be seen elsewhere."""

    node: NodeId
    drain_s: float
    backoff: BackoffPolicy
    secrets_of: Callable[[ContainerSpec], Mapping[str, str]]


class Jobs:
    """Every method returns the replica's next Attempt, or None when there is nothing to remember."""

    def __init__(self, runtime: EngineRuntime, reporter: Reporter, clock: Clock, settings: JobSettings) -> None:
        self._runtime = runtime
        self._reporter = reporter
        self._clock = clock
        self._settings = settings

    @property
    def node(self) -> NodeId:
        return self._settings.node

    async def launch(self, action: Launch, previous: Attempt | None) -> Attempt | None:
        """Remove what is left, create, start. A failure is reported and counted like a crash."""
        spec = action.spec
        identity = identity_of(spec, action.restarts)
        self._reporter.report(
            Standing(identity, ReplicaState.STARTING, action.reason, restarts=action.restarts, gpus=spec.gpus)
        )
        try:
            await self._runtime.remove(spec.replica_id)
            created = await self._runtime.create(spec, self._settings.secrets_of(spec), action.restarts)
            self._emit(ContainerCreatedV1(**self._common(identity), container=created.container))
            started = await self._runtime.start(spec.replica_id)
        except (DomainError, TransientError) as error:
            LAUNCHES.labels(spec.engine_type.value, "failed").inc()
            return self._launch_failed(identity, previous, error)
        LAUNCHES.labels(spec.engine_type.value, "started").inc()
        if started.phase is Phase.RUNNING:
            self._report_running(started, "the engine's process runs")
            self._emit(
                ContainerStartedV1(
                    **self._common(identity), container=started.container, endpoint=started.endpoint or ""
                )
            )
        log.info("replica_started", replica_id=spec.replica_id, endpoint=started.endpoint, reason=action.reason)
        counted = previous if previous is not None and previous.spec_hash == spec.hash else None
        failures = counted.failures if counted is not None else 0
        return Attempt(spec.hash, failures=failures, restarts=action.restarts)

    async def retire(self, action: Retire, stop_timeout_s: int | None) -> Attempt | None:
        """Drain, stop, remove. `stop_timeout_s` is the model's present one; without it the label's counts."""
        seen = action.observed
        identity = seen.identity
        self._reporter.report(replace(_standing(seen, ReplicaState.DRAINING), reason=action.reason))
        await self._reporter.flushed(FLUSH_TIMEOUT_S)
        await asyncio.sleep(self._settings.drain_s)
        policy = ENGINES[identity.engine_type].stop_policy(
            identity.stop_timeout_s if stop_timeout_s is None else stop_timeout_s
        )
        end = await self._runtime.stop(seen.replica_id, policy)
        log.info("replica_stopped", replica_id=seen.replica_id, reason=action.reason, exit_code=end.code)
        self._emit(ContainerStoppedV1(**self._common(identity), reason=action.reason, exit_code=end.code))
        return await self._remove(seen, action.reason)

    async def discard(self, action: Discard) -> Attempt | None:
        """Remove a replica that does not run."""
        return await self._remove(action.observed, action.reason)

    async def examine(self, action: Examine, previous: Attempt | None) -> Attempt | None:
        """Tell why an engine ended, and when it is tried again."""
        seen = action.observed
        end = seen.exit or Exit(None)
        lines = await self._runtime.logs(seen.replica_id, DIAGNOSIS_LINES)
        diagnosis = diagnose(end, lines)
        restarts = seen.identity.restarts
        failed = Attempt(seen.identity.spec_hash, restarts=restarts, incarnation=seen.incarnation)
        attempt = after_failure(previous, failed, seen.ran_for_s, self._clock.now(), self._settings.backoff)
        reason = diagnosis.message if diagnosis is not None else _without_diagnosis(end)
        FAILURES.labels(seen.identity.engine_type.value, diagnosis.code if diagnosis is not None else "unknown").inc()
        self._reporter.report(
            replace(
                _standing(seen, ReplicaState.FAILED),
                reason=reason,
                exit_code=end.code,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        self._emit(
            ContainerFailedV1(
                **self._common(seen.identity),
                reason=reason,
                exit_code=end.code,
                oom_killed=end.oom_killed,
                log_tail=tuple(line[:LOG_LINE_CHARACTERS] for line in lines[-LOG_TAIL_LINES:]),
                diagnosis=diagnosis,
                restarts=restarts,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        log.warning("replica_failed", replica_id=seen.replica_id, exit_code=end.code, reason=reason)
        return attempt

    def adopt(self, action: Adopt) -> None:
        """Report an engine that an earlier orchestrator has left running."""
        seen = action.observed
        self._report_running(seen, action.reason)
        self._emit(ContainerAdoptedV1(**self._common(seen.identity), container=seen.container, endpoint=seen.endpoint))
        log.info("replica_adopted", replica_id=seen.replica_id, endpoint=seen.endpoint, reason=action.reason)

    def reject(self, action: Reject, identity: Identity, previous: Attempt | None) -> Attempt:
        """Report a replica that cannot be built; it is not tried until the problem is another one or gone."""
        reason = action.problem.message
        self._reporter.report(Standing(identity, ReplicaState.FAILED, reason))
        self._emit(ContainerFailedV1(**self._common(identity), reason=reason))
        log.warning("replica_rejected", replica_id=identity.replica_id, code=action.problem.code, reason=reason)
        judged = previous.incarnation if previous is not None else None
        return Attempt("", incarnation=judged, problem=action.problem.code)

    async def _remove(self, seen: Observed, reason: str) -> None:
        await self._runtime.remove(seen.replica_id)
        self._emit(ContainerRemovedV1(**self._common(seen.identity), reason=reason))
        self._reporter.withdraw(seen.replica_id)
        log.info("replica_removed", replica_id=seen.replica_id, reason=reason)

    def _launch_failed(self, identity: Identity, previous: Attempt | None, error: Exception) -> Attempt:
        failed = Attempt(identity.spec_hash, restarts=identity.restarts)
        attempt = after_failure(previous, failed, 0.0, self._clock.now(), self._settings.backoff)
        reason = str(error)
        self._reporter.report(
            Standing(
                identity,
                ReplicaState.FAILED,
                reason,
                restarts=identity.restarts,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        self._emit(
            ContainerFailedV1(
                **self._common(identity),
                reason=reason,
                restarts=identity.restarts,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        log.warning("replica_launch_failed", replica_id=identity.replica_id, reason=reason)
        return attempt

    def _report_running(self, seen: Observed, reason: str) -> None:
        self._reporter.report(replace(_standing(seen, ReplicaState.STARTED), reason=reason, endpoint=seen.endpoint))

    def _common(self, identity: Identity) -> _Common:
        return _Common(
            replica_id=identity.replica_id,
            model_id=identity.model_id,
            ordinal=identity.ordinal,
            engine_type=identity.engine_type,
            node=self._settings.node,
            spec_hash=identity.spec_hash,
        )

    def _emit(
        self,
        event: ContainerCreatedV1
        | ContainerStartedV1
        | ContainerStoppedV1
        | ContainerFailedV1
        | ContainerAdoptedV1
        | ContainerRemovedV1,
    ) -> None:
        self._reporter.emit(event, event.replica_id, event.model_id)


def identity_of(spec: ContainerSpec, restarts: int = 0) -> Identity:
    """The identity that the labels of a container made from this spec will say."""
    return Identity(spec.model_id, spec.ordinal, spec.engine_type, spec.hash, restarts, spec.stop_timeout_s)


def _without_diagnosis(end: Exit) -> str:
    if end.code is None:
        return "the engine is gone and its exit code is not known: its machine or its keeper ended with it"
    return f"the engine ended with exit code {end.code}"


def _standing(seen: Observed, state: ReplicaState) -> Standing:
    return Standing(
        seen.identity,
        state,
        "",
        endpoint=seen.endpoint,
        container=seen.container,
        restarts=seen.identity.restarts,
        gpus=seen.gpus,
    )
