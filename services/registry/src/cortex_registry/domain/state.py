"""The observed state of a model, projected from what the orchestrator and the health service wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from typing import assert_never

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle, ModelState, ReplicaState, Verdict
from cortex_contracts.external import external_replicas
from cortex_registry.domain.outbox import Cause


@dataclass(frozen=True, slots=True)
class Projected:
    """What an administrator is told: the state, why, and since when."""

    state: ModelState
    reason: str
    since: datetime
    cause: Cause = field(default_factory=Cause, compare=False)
    """What was observed last, as far as it names its cause."""


class _Stage(Enum):
    """How far one wanted replica has come."""

    ABSENT = auto()
    PULLING = auto()
    STARTING = auto()
    LOADING = auto()
    SERVING = auto()
    UNHEALTHY = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class _Seen:
    stage: _Stage
    reason: str
    since: datetime | None


_PROGRESS = (
    (_Stage.LOADING, ModelState.LOADING),
    (_Stage.STARTING, ModelState.STARTING),
    (_Stage.PULLING, ModelState.PULLING),
    (_Stage.ABSENT, ModelState.STARTING),
)
_PREFERENCE = (
    _Stage.SERVING,
    _Stage.UNHEALTHY,
    _Stage.FAILED,
    _Stage.LOADING,
    _Stage.STARTING,
    _Stage.PULLING,
    _Stage.ABSENT,
)
"""Which replicas count when there are more than asked for."""
_GONE = (ReplicaState.STOPPED, ReplicaState.FAILED)


def project(
    model: ModelDocumentV1,
    replicas: Iterable[ReplicaDocumentV1],
    verdicts: Iterable[VerdictDocumentV1],
    *,
    desired_since: datetime,
) -> Projected:
    """Project the state of one model.

    Args:
        model: what is asked for.
        replicas: replicas of any model; those of others are ignored.
        verdicts: verdicts of any replica; one with another spec hash than the replica's says nothing.
        desired_since: the answer to "since when" where nothing has been observed.
    """
    own = own_replicas(model, replicas)
    wanted = len(model.external) or model.replicas
    if model.desired_state is DesiredState.STOPPED or wanted == 0:
        return _project_stopped(model, own, desired_since)
    by_id = {verdict.replica_id: verdict for verdict in verdicts}
    if not own and model.lifecycle is Lifecycle.ON_DEMAND:
        return Projected(ModelState.STOPPED, "asleep: the next request starts it", desired_since)
    # While a change rolls out there is one replica more, and afterwards ordinals need not begin at 0.
    looks = sorted(
        (_look(replica, by_id) for replica in sorted(own, key=lambda one: one.ordinal)),
        key=lambda one: _PREFERENCE.index(one.stage),
    )
    seen = [*looks, *(_look(None, by_id) for _ in range(wanted))][:wanted]
    return _project_running(seen, desired_since)


def own_replicas(model: ModelDocumentV1, replicas: Iterable[ReplicaDocumentV1]) -> list[ReplicaDocumentV1]:
    """The replicas of a model; for one that others run its endpoints, which nobody reports."""
    if model.external:
        return list(external_replicas(model))
    return [replica for replica in replicas if replica.model_id == model.id]


def cause_of(
    model: ModelDocumentV1, replicas: Iterable[ReplicaDocumentV1], verdicts: Iterable[VerdictDocumentV1]
) -> Cause:
    """What a change of the model's state follows from: what was seen last of what the present version led to.

    Args:
        model: what is asked for.
        replicas: replicas of this model.
        verdicts: verdicts on them.
    """
    seen = [one for one in (*replicas, *verdicts) if one.causation_id is not None]
    following = [one for one in seen if one.correlation_id == model.correlation_id]
    if not following and model.causation_id is not None:
        return Cause(model.correlation_id, model.causation_id)
    last = max(following or seen, key=lambda one: one.since, default=None)
    return Cause(last.correlation_id, last.causation_id) if last is not None else Cause(model.correlation_id)


def _project_stopped(model: ModelDocumentV1, own: Sequence[ReplicaDocumentV1], desired_since: datetime) -> Projected:
    alive = [replica for replica in own if replica.state not in _GONE]
    if alive:
        trouble = next((f"; {replica.trouble}" for replica in alive if replica.trouble is not None), "")
        reason = f"{_count(len(alive), 'replica')} still to stop{trouble}"
        return Projected(ModelState.STOPPING, reason, max(desired_since, min(replica.since for replica in alive)))
    reason = "stopped" if model.desired_state is DesiredState.STOPPED else "scaled to zero replicas"
    return Projected(ModelState.STOPPED, reason, max([desired_since, *(replica.since for replica in own)]))


def _look(replica: ReplicaDocumentV1 | None, verdicts: dict[ReplicaId, VerdictDocumentV1]) -> _Seen:
    if replica is None:
        return _Seen(_Stage.ABSENT, "waiting for the orchestrator", None)
    seen = _look_at_document(replica, verdicts)
    if replica.trouble is None or seen.stage is _Stage.SERVING:
        return seen
    return replace(seen, reason=f"{seen.reason}; {replica.trouble}")


def _look_at_document(replica: ReplicaDocumentV1, verdicts: dict[ReplicaId, VerdictDocumentV1]) -> _Seen:
    match replica.state:
        case ReplicaState.PULLING:
            return _Seen(_Stage.PULLING, replica.reason or _pull_reason(replica), replica.since)
        case ReplicaState.STARTING:
            return _Seen(_Stage.STARTING, replica.reason or "the engine starts", replica.since)
        case ReplicaState.DRAINING:
            return _Seen(_Stage.STARTING, replica.reason or "the engine is replaced", replica.since)
        case ReplicaState.STOPPED:
            return _Seen(_Stage.STARTING, replica.reason or "the engine is about to start", replica.since)
        case ReplicaState.FAILED:
            return _Seen(_Stage.FAILED, _failure(replica), replica.since)
        case ReplicaState.STARTED:
            return _look_at_verdict(replica, verdicts.get(replica.id))
        case _:
            assert_never(replica.state)


def _look_at_verdict(replica: ReplicaDocumentV1, verdict: VerdictDocumentV1 | None) -> _Seen:
    if verdict is None or verdict.spec_hash != replica.spec_hash:
        return _Seen(_Stage.LOADING, "the engine has not been probed yet", replica.since)
    match verdict.verdict:
        case Verdict.HEALTHY:
            return _Seen(_Stage.SERVING, verdict.reason, verdict.since)
        case Verdict.LOADING:
            return _Seen(_Stage.LOADING, verdict.reason or "the engine loads the model", verdict.since)
        case Verdict.UNHEALTHY:
            return _Seen(_Stage.UNHEALTHY, verdict.reason or "the engine does not answer well", verdict.since)
        case _:
            assert_never(verdict.verdict)


def _project_running(seen: Sequence[_Seen], desired_since: datetime) -> Projected:
    serving = [one for one in seen if one.stage is _Stage.SERVING]
    broken = [one for one in seen if one.stage in (_Stage.UNHEALTHY, _Stage.FAILED)]
    if len(serving) == len(seen):
        return Projected(ModelState.RUNNING, f"{_count(len(serving), 'replica')} healthy", _latest(serving, None))
    if serving and broken:
        reason = f"{len(serving)} of {_count(len(seen), 'replica')} healthy; {broken[0].reason}"
        return Projected(ModelState.DEGRADED, reason, _latest(broken, desired_since))
    if serving:
        coming = next(one for one in seen if one.stage is not _Stage.SERVING)
        reason = f"{len(serving)} of {_count(len(seen), 'replica')} healthy; {coming.reason}"
        return Projected(ModelState.RUNNING, reason, _latest(serving, None))
    for stage, state in _PROGRESS:
        coming = [one for one in seen if one.stage is stage]
        if coming:
            return Projected(state, coming[0].reason, _latest(coming, desired_since))
    return Projected(ModelState.FAILED, broken[0].reason, _latest(broken, desired_since))


def _latest(seen: Sequence[_Seen], floor: datetime | None) -> datetime:
    times = [one.since for one in seen if one.since is not None]
    if floor is not None:
        times.append(floor)
    return max(times)


def _failure(replica: ReplicaDocumentV1) -> str:
    reason = replica.reason or "the engine failed"
    if replica.exit_code is not None and "exit" not in reason:
        reason = f"{reason} (exit code {replica.exit_code})"
    if replica.next_attempt_at is not None:
        reason = f"{reason}; next attempt at {replica.next_attempt_at:%H:%M:%S} UTC"
    return reason


def _pull_reason(replica: ReplicaDocumentV1) -> str:
    pull = replica.pull
    if pull is None or not pull.total_bytes:
        return "the engine's image is pulled"
    return f"the engine's image is pulled: {100 * pull.current_bytes // pull.total_bytes} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
