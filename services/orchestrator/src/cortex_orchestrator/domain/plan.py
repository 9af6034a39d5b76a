"""What to do now: desired and observed replicas in, actions with reasons out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from cortex_contracts.base import ModelId, ReplicaId
from cortex_orchestrator.domain.attempts import Attempt
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.spec import ContainerSpec


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a wanted replica cannot be built."""

    code: str
    message: str
    fix: str = ""


VANISHED = "somebody else removed it; it is made again"
NOT_RESTARTED = Problem(
    "not_restarted",
    "The engine ended, and a model with the manual lifecycle is not started again by itself.",
    "Find out why it ended, then start the model again.",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replica that should run: its spec, or the problem, or neither while the engine is still being looked up."""

    spec: ContainerSpec | None = None
    problem: Problem | None = None
    held: bool = False
    """It runs under an older specification and goes on until its successor serves."""
    once: bool = False
    """It is not started again after it ended by itself."""
    replace_reason: str = "its specification changed"
    """Why a run of another specification is stopped first."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a plan depends on."""

    now: datetime
    wanted: Mapping[ReplicaId, Wanted]
    observed: Mapping[ReplicaId, Observed]
    attempts: Mapping[ReplicaId, Attempt] = field(default_factory=dict[ReplicaId, Attempt])
    reported: frozenset[ReplicaId] = frozenset()
    """Replicas that have a document."""
    rejected: frozenset[ReplicaId] = frozenset()
    """Replicas whose document tells of a failure."""
    vanished: frozenset[ReplicaId] = frozenset()
    """Replicas that ran and are gone although nobody here removed them."""
    started: frozenset[ReplicaId] = frozenset()
    """Replicas whose document tells of exactly the run that is observed."""
    busy: frozenset[ReplicaId] = frozenset()
    """Replicas with an action under way."""
    late: frozenset[ReplicaId] = frozenset()
    """Replicas that run, were never healthy and are past their startup timeout."""
    farewells: Mapping[ReplicaId, str] = field(default_factory=dict[ReplicaId, str])
    """Why a replica is not wanted any more, where there is more to say than that."""
    doubtful: frozenset[ModelId] | None = frozenset()
    """Models whose absence may be an accident of the store; None when that holds for every model."""

    def is_doubtful(self, model_id: ModelId) -> bool:
        return self.doubtful is None or model_id in self.doubtful


@dataclass(frozen=True, slots=True)
class Launch:
    """Remove what is left of the replica, create it, start it."""

    spec: ContainerSpec
    restarts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Drain, stop and remove a running replica."""

    observed: Observed
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove a replica that does not run."""

    observed: Observed
    reason: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """Report a running replica that this orchestrator has not started."""

    observed: Observed
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop a replica that did not become healthy in time, report it, decide when to try again."""

    observed: Observed
    reason: str


@dataclass(frozen=True, slots=True)
class Examine:
    """Find out why a replica ended, report it, decide when to try again; never when it runs `once`."""

    observed: Observed
    reason: str
    once: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """Report that a replica cannot be built."""

    replica_id: ReplicaId
    problem: Problem
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the document of a replica that neither exists nor should."""

    replica_id: ReplicaId
    reason: str


Action = Launch | Retire | Discard | Adopt | GiveUp | Examine | Reject | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    """Independent actions, at most one a replica, and when to plan again for the sake of a backoff."""

    actions: tuple[Action, ...]
    wake_at: datetime | None = None


def plan(situation: Situation) -> Plan:
    """Pure: the same situation gives the same plan."""
    ids = situation.wanted.keys() | situation.observed.keys() | situation.reported
    actions: list[Action] = []
    waits: list[datetime] = []
    for replica in sorted(ids - situation.busy):
        action = _decide(replica, situation)
        if action is not None:
            actions.append(action)
            continue
        attempt = situation.attempts.get(replica)
        if replica in situation.wanted and attempt is not None and attempt.next_attempt_at is not None:
            waits.append(attempt.next_attempt_at)
    future = [moment for moment in waits if moment > situation.now]
    return Plan(tuple(actions), min(future, default=None))


def _decide(replica: ReplicaId, situation: Situation) -> Action | None:
    wanted = situation.wanted.get(replica)
    seen = situation.observed.get(replica)
    if wanted is None:
        return _unwanted(replica, seen, situation)
    if seen is None:
        return _missing(replica, wanted, situation)
    match seen.phase:
        case Phase.RUNNING:
            return _running(seen, wanted, situation)
        case Phase.CREATED:
            return _launch(replica, wanted, situation, "a launch was interrupted") or _reject(
                replica, wanted, situation
            )
        case Phase.EXITED:
            return _exited(seen, wanted, situation)
        case _:
            assert_never(seen.phase)


def _unwanted(replica: ReplicaId, seen: Observed | None, situation: Situation) -> Action | None:
    if seen is None:
        return Forget(replica, "neither wanted nor there")
    if situation.is_doubtful(seen.identity.model_id):
        if seen.phase is Phase.RUNNING and replica not in situation.started:
            return Adopt(seen, "found running; its model is not known yet")
        return None
    reason = situation.farewells.get(replica, "no longer wanted")
    if seen.phase is Phase.RUNNING:
        return Retire(seen, reason)
    return Discard(seen, reason)


def _missing(replica: ReplicaId, wanted: Wanted, situation: Situation) -> Action | None:
    attempt = situation.attempts.get(replica)
    if attempt is not None and _is_over(wanted, attempt):
        return None if attempt.failures else _reject(replica, Wanted(problem=NOT_RESTARTED), situation)
    reason = VANISHED if replica in situation.vanished else "wanted and not there"
    return _launch(replica, wanted, situation, reason) or _reject(replica, wanted, situation)


def _running(seen: Observed, wanted: Wanted, situation: Situation) -> Action | None:
    spec = wanted.spec
    if seen.replica_id not in situation.started:
        known = spec is not None and spec.hash == seen.identity.spec_hash
        return Adopt(seen, "found running", spec.command.warnings if spec is not None and known else ())
    if spec is not None and spec.hash != seen.identity.spec_hash:
        return None if wanted.held else Retire(seen, wanted.replace_reason)
    if seen.detached is not None:
        return Retire(seen, seen.detached)
    if seen.replica_id in situation.late:
        return GiveUp(seen, "it did not become healthy in time")
    return None


def _exited(seen: Observed, wanted: Wanted, situation: Situation) -> Action | None:
    attempt = situation.attempts.get(seen.replica_id)
    if attempt is None or attempt.incarnation != seen.incarnation:
        return Examine(seen, "ended without being asked to", wanted.once)
    if _is_over(wanted, attempt):
        return None
    return _launch(seen.replica_id, wanted, situation, f"try again after failure {attempt.failures}") or _reject(
        seen.replica_id, wanted, situation
    )


def _is_over(wanted: Wanted, attempt: Attempt) -> bool:
    """Whether the only run that this specification gets is over."""
    if not wanted.once or wanted.spec is None:
        return False
    return attempt.problem == NOT_RESTARTED.code or attempt.spec_hash == wanted.spec.hash


def _launch(replica: ReplicaId, wanted: Wanted, situation: Situation, reason: str) -> Launch | None:
    """A launch, unless there is nothing to launch or the backoff of this very spec is not over."""
    if wanted.spec is None:
        return None
    attempt = situation.attempts.get(replica)
    if attempt is None:
        return Launch(wanted.spec, 0, reason)
    if attempt.spec_hash != wanted.spec.hash:
        return Launch(wanted.spec, 0, "its specification changed")
    if attempt.next_attempt_at is not None and attempt.next_attempt_at > situation.now:
        return None
    return Launch(wanted.spec, attempt.restarts + 1, reason)


def _reject(replica: ReplicaId, wanted: Wanted, situation: Situation) -> Reject | None:
    if wanted.problem is None:
        return None
    attempt = situation.attempts.get(replica)
    if attempt is not None and attempt.problem == wanted.problem.code and replica in situation.rejected:
        return None
    return Reject(replica, wanted.problem, "it cannot be built")


@dataclass(frozen=True, slots=True)
class Absences:
    """Since when each model has been missing while the store could be trusted."""

    since: Mapping[ModelId, datetime] = field(default_factory=dict[ModelId, datetime])

    def observe(self, missing: frozenset[ModelId], now: datetime) -> "Absences":
        """Models that are missing now; one that came back starts anew when it leaves again."""
        return Absences({model: self.since.get(model, now) for model in missing})

    def doubtful(self, now: datetime, grace_s: float) -> frozenset[ModelId]:
        """Missing models that must be left alone for now."""
        return frozenset(model for model, since in self.since.items() if (now - since).total_seconds() < grace_s)
