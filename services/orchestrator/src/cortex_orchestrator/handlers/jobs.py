"""The long actions of a plan, each on one replica: act on the runtime, report what was observed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.documents import ReplicaDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState
from cortex_contracts.events import (
    ContainerAdoptedV1,
    ContainerCreatedV1,
    ContainerFailedV1,
    ContainerRemovedV1,
    ContainerStartedV1,
    ContainerStoppedV1,
    PlacementRejectedV1,
)
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.attempts import Attempt, BackoffPolicy, after_failure
from cortex_orchestrator.domain.diagnosis import CODES, diagnose, diagnose_launch
from cortex_orchestrator.domain.diagnosis import with_runtime as ended_with_runtime
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.domain.observed import Exit, Identity, Observed, Phase
from cortex_orchestrator.domain.placement import Refused
from cortex_orchestrator.domain.plan import (
    NOT_RESTARTED,
    VANISHED,
    Adopt,
    Discard,
    Examine,
    GiveUp,
    Launch,
    Reject,
    Retire,
)
from cortex_orchestrator.domain.spec import ContainerSpec
from cortex_orchestrator.handlers.drain import Drain
from cortex_orchestrator.handlers.report import Reporter, Standing
from cortex_orchestrator.metrics import FAILURES, LAUNCHES, REJECTIONS
from cortex_orchestrator.ports import EngineRuntime

log = get_logger()

FLUSH_TIMEOUT_S = 1.0
DRAIN_SHARE = 0.8
"""Of the stop timeout; the rest is for the engine's own end."""
MIN_STOP_S = 2
NO_ROOM_FIX = "Stop another model, or make this one smaller: less context, fewer slots, a smaller quantization."
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
    backoff: BackoffPolicy
    secrets_of: Callable[[ContainerSpec], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    diagnosis: Diagnosis | None
    lines: tuple[str, ...]
    end: Exit


class Jobs:
    """Every method returns the replica's next Attempt, or None when there is nothing to remember."""

    def __init__(
        self, runtime: EngineRuntime, reporter: Reporter, drain: Drain, clock: Clock, settings: JobSettings
    ) -> None:
        self._runtime = runtime
        self._reporter = reporter
        self._drain = drain
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
            self._report_running(started, "the engine's process runs", spec.command.warnings)
            self._emit(
                ContainerStartedV1(
                    **self._common(identity), container=started.container, endpoint=started.endpoint or ""
                )
            )
        log.info("replica_started", replica_id=spec.replica_id, endpoint=started.endpoint, reason=action.reason)
        counted = previous if previous is not None and previous.spec_hash == spec.hash else None
        failures = counted.failures if counted is not None else 0
        return Attempt(spec.hash, failures=failures, restarts=action.restarts)

    async def retire(self, action: Retire, stop_timeout_s: int | None, *, has_served: bool) -> Attempt | None:
        """Drain, stop, remove. `stop_timeout_s` is the model's present one; without it the label's counts.

        The engine is gone when that time is over: what of it the requests in flight do not need is left for its end.
        """
        seen = action.observed
        identity = seen.identity
        engine = ENGINES[identity.engine_type]
        budget = identity.stop_timeout_s if stop_timeout_s is None else stop_timeout_s
        began = self._clock.monotonic()
        self._reporter.report(replace(_standing(seen, ReplicaState.DRAINING), reason=action.reason))
        await self._reporter.flushed(FLUSH_TIMEOUT_S)
        drained = "it served nobody"
        if has_served and engine.drains_itself:
            drained = "the engine finishes what it has begun"
            await self._drain.pause(budget)
        elif has_served:
            drained = await self._drain.wait(seen, budget * DRAIN_SHARE)
        left = max(MIN_STOP_S, budget - round(self._clock.monotonic() - began))
        end = await self._runtime.stop(seen.replica_id, engine.stop_policy(left))
        log.info("replica_stopped", replica_id=seen.replica_id, reason=action.reason, drain=drained, exit_code=end.code)
        self._emit(ContainerStoppedV1(**self._common(identity), reason=action.reason, exit_code=end.code))
        return await self._remove(seen, action.reason)

    async def give_up(self, action: GiveUp, previous: Attempt | None, startup_timeout_s: int) -> Attempt | None:
        """Stop a replica that was not healthy in time. What is left of it stays for whoever reads its log."""
        seen = action.observed
        lines = await self._runtime.logs(seen.replica_id, DIAGNOSIS_LINES)
        hint = diagnose(Exit(None), lines)
        await self._runtime.stop(seen.replica_id, ENGINES[seen.identity.engine_type].stop_policy(MIN_STOP_S))
        diagnosis = Diagnosis(
            code="startup_timeout",
            message=f"The engine was not healthy {startup_timeout_s} s after its start and was stopped."
            + (f" {hint.message}" if hint is not None else ""),
            fix=hint.fix
            if hint is not None
            else "Raise startup_timeout_s, or find in the log what the engine waits for.",
        )
        failed = Attempt(seen.identity.spec_hash, restarts=seen.identity.restarts, incarnation=seen.incarnation)
        attempt = after_failure(previous, failed, 0.0, self._clock.now(), self._settings.backoff)
        failure = _Failure(diagnosis.message, diagnosis, tuple(lines), Exit(None))
        self._report_failure(seen, failure, attempt)
        return attempt

    async def discard(self, action: Discard) -> Attempt | None:
        """Remove a replica that does not run."""
        return await self._remove(action.observed, action.reason)

    async def examine(self, action: Examine, previous: Attempt | None, *, with_runtime: bool = False) -> Attempt | None:
        """Tell why an engine ended, and when it is tried again. `with_runtime`: it ended while the runtime was away."""
        seen = action.observed
        end = seen.exit or Exit(None)
        lines = await self._runtime.logs(seen.replica_id, DIAGNOSIS_LINES)
        diagnosis = ended_with_runtime(end) if with_runtime else None
        diagnosis = diagnosis or diagnose(end, lines)
        restarts = seen.identity.restarts
        failed = Attempt(seen.identity.spec_hash, restarts=restarts, incarnation=seen.incarnation)
        attempt = after_failure(previous, failed, seen.ran_for_s, self._clock.now(), self._settings.backoff)
        reason = diagnosis.message if diagnosis is not None else _without_diagnosis(end)
        if action.once:
            attempt = replace(attempt, next_attempt_at=None)
            reason = f"{reason} {NOT_RESTARTED.message}"
        self._report_failure(seen, _Failure(reason, diagnosis, tuple(lines), end), attempt)
        return attempt

    def adopt(self, action: Adopt) -> None:
        """Report an engine that an earlier orchestrator has left running."""
        seen = action.observed
        self._report_running(seen, action.reason, action.warnings)
        self._emit(ContainerAdoptedV1(**self._common(seen.identity), container=seen.container, endpoint=seen.endpoint))
        log.info("replica_adopted", replica_id=seen.replica_id, endpoint=seen.endpoint, reason=action.reason)

    def reject(self, action: Reject, identity: Identity, previous: Attempt | None) -> Attempt:
        """Report a replica that cannot be built; it is not tried until the problem is another one or gone."""
        problem = action.problem
        reason = problem.message
        diagnosis = diagnose_launch(problem.code, reason)
        if problem.fix:
            diagnosis = Diagnosis(code=problem.code, message=reason, fix=problem.fix)
        FAILURES.labels(identity.engine_type.value, diagnosis.code if diagnosis.code in CODES else "unknown").inc()
        self._reporter.report(Standing(identity, ReplicaState.FAILED, reason, diagnosis=diagnosis))
        self._emit(ContainerFailedV1(**self._common(identity), reason=reason, diagnosis=diagnosis))
        log.warning("replica_rejected", replica_id=identity.replica_id, code=action.problem.code, reason=reason)
        judged = previous.incarnation if previous is not None else None
        return Attempt("", incarnation=judged, problem=action.problem.code)

    def vanished(self, document: ReplicaDocumentV1) -> None:
        """Report that a replica which ran is gone, and that it was not us."""
        identity = Identity(document.model_id, document.ordinal, document.engine_type, document.spec_hash)
        self._reporter.report(Standing(identity, ReplicaState.STARTING, VANISHED, restarts=document.restarts))
        self._emit(ContainerRemovedV1(**self._common(identity), reason="somebody else removed it"))
        log.warning("replica_vanished", replica_id=document.id, container=document.container)

    def refuse(self, identity: Identity, refused: Refused) -> None:
        """Report a replica for which there is no room; it is looked at again whenever there may be."""
        fix = "Something that would fit: " + "; ".join(refused.would_fit) if refused.would_fit else NO_ROOM_FIX
        diagnosis = Diagnosis(code="no_room", message=refused.reason, fix=fix)
        self._reporter.report(Standing(identity, ReplicaState.FAILED, refused.reason, diagnosis=diagnosis))
        event = PlacementRejectedV1(
            model_id=identity.model_id,
            ordinal=identity.ordinal,
            reason=refused.reason,
            asked_bytes=refused.asked,
            tried=refused.tried,
            would_fit=refused.would_fit,
        )
        self._reporter.emit(event, identity.replica_id, identity.model_id)
        REJECTIONS.inc()
        log.warning("placement_rejected", replica_id=identity.replica_id, reason=refused.reason, tried=refused.tried)

    async def _remove(self, seen: Observed, reason: str) -> None:
        await self._runtime.remove(seen.replica_id)
        self._emit(ContainerRemovedV1(**self._common(seen.identity), reason=reason))
        self._reporter.withdraw(seen.replica_id)
        log.info("replica_removed", replica_id=seen.replica_id, reason=reason)

    def _launch_failed(self, identity: Identity, previous: Attempt | None, error: Exception) -> Attempt:
        failed = Attempt(identity.spec_hash, restarts=identity.restarts)
        attempt = after_failure(previous, failed, 0.0, self._clock.now(), self._settings.backoff)
        reason = str(error)
        code = error.code if isinstance(error, DomainError) else "runtime_unreachable"
        diagnosis = diagnose_launch(code, reason)
        FAILURES.labels(identity.engine_type.value, diagnosis.code if diagnosis.code in CODES else "unknown").inc()
        self._reporter.report(
            Standing(
                identity,
                ReplicaState.FAILED,
                reason,
                restarts=identity.restarts,
                next_attempt_at=attempt.next_attempt_at,
                diagnosis=diagnosis,
            )
        )
        self._emit(
            ContainerFailedV1(
                **self._common(identity),
                reason=reason,
                diagnosis=diagnosis,
                restarts=identity.restarts,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        log.warning("replica_launch_failed", replica_id=identity.replica_id, reason=reason)
        return attempt

    def _report_failure(self, seen: Observed, failure: _Failure, attempt: Attempt) -> None:
        diagnosis, end = failure.diagnosis, failure.end
        FAILURES.labels(seen.identity.engine_type.value, diagnosis.code if diagnosis is not None else "unknown").inc()
        self._reporter.report(
            replace(
                _standing(seen, ReplicaState.FAILED),
                reason=failure.reason,
                exit_code=end.code,
                next_attempt_at=attempt.next_attempt_at,
                diagnosis=diagnosis,
                endpoint=None,
            )
        )
        self._emit(
            ContainerFailedV1(
                **self._common(seen.identity),
                reason=failure.reason,
                exit_code=end.code,
                oom_killed=end.oom_killed,
                log_tail=tuple(line[:LOG_LINE_CHARACTERS] for line in failure.lines[-LOG_TAIL_LINES:]),
                diagnosis=diagnosis,
                restarts=seen.identity.restarts,
                next_attempt_at=attempt.next_attempt_at,
            )
        )
        log.warning("replica_failed", replica_id=seen.replica_id, exit_code=end.code, reason=failure.reason)

    def _report_running(self, seen: Observed, reason: str, warnings: tuple[str, ...]) -> None:
        standing = replace(_standing(seen, ReplicaState.STARTED), reason=reason, warnings=warnings)
        self._reporter.report(standing)

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
