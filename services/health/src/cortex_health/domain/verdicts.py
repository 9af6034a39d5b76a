"""From probes to verdicts. Pure: no clock, no network, no log.

    (unknown) ──first ok──► healthy ◄──M successes── unhealthy
        │                   │    └──N failures in a row──► ▲
        └─► loading ─first ok┘                             │
              └──── N failures, when no longer young ──────┘

Any verdict becomes `loading` as soon as the engine itself says that it is loading.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import ReplicaState, Verdict


class Outcome(StrEnum):
    """What one probe met."""

    OK = "ok"
    LOADING = "loading"
    """The engine answered that it is loading its model."""
    REFUSED = "refused"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    """The connection failed in another way: reset, closed, no route, no such host."""
    BAD_STATUS = "bad_status"
    """The engine answered that it cannot serve, or something else answered."""


_NOT_UP_YET = frozenset({Outcome.REFUSED, Outcome.TIMEOUT, Outcome.BROKEN})


class Reason(StrEnum):
    """Everything a verdict can say of itself; a failure of an engine that may still be starting gets `starting: ` before it."""

    ANSWERS = "answers"
    LOADING_MODEL = "loading model"
    CORE_DEAD = "the engine core is dead (HTTP 503)"
    KEY_REFUSED = "refuses its key (HTTP 401 or 403)"
    NO_HEALTH = "knows no health check (HTTP 404)"
    CLIENT_ERROR = "answers with an error (HTTP 4xx)"
    SERVER_ERROR = "answers with an error (HTTP 5xx)"
    NO_ENGINE = "does not answer like an engine"
    CONNECTION_REFUSED = "connection refused"
    UNREACHABLE = "cannot be reached"
    NO_ANSWER = "no answer in time"
    CONNECTION_BROKEN = "the connection broke"
    UNUSABLE_ENDPOINT = "the endpoint is no address"
    REQUEST_FAILED = "failed a real request"
    REQUEST_TIMEOUT = "no answer to a real request in time"


STARTING = "starting: "


@dataclass(frozen=True, slots=True)
class Probe:
    """Result of one look at an engine."""

    outcome: Outcome
    reason: str
    """One of `Reason`: it is stored, and a new one is a change."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How quickly to believe, and how often to look."""

    unhealthy_after: int = 3
    healthy_after: int = 2
    """Successes in a row after having been unhealthy; the first ever needs one."""
    young: timedelta = timedelta(minutes=15)
    """How long an engine that was never healthy may be unreachable and still count as loading."""
    loading_interval_s: float = 0.25
    doubtful_interval_s: float = 0.25
    healthy_interval_s: float = 1.0
    unhealthy_interval_s: float = 1.0
    traffic_interval_s: float = 2.0
    draining_interval_s: float = 0.25
    canary_interval_s: float = 0.0
    """How long a healthy engine may go without having done any work before it is sent a real request; 0: for ever."""


@dataclass(frozen=True, slots=True)
class HealthState:
    """What is believed of one incarnation of a replica. `verdict` is None before the first conclusion."""

    started_at: datetime
    verdict: Verdict | None = None
    reason: str = ""
    since: datetime | None = None
    successes: int = 0
    """OK probes in a row."""
    failures: int = 0
    """Failed probes in a row."""
    streak: int = 0
    """Probes in a row that support the verdict."""
    load: EngineLoad = field(default_factory=EngineLoad)


@dataclass(frozen=True, slots=True)
class Transition:
    """The verdict moved."""

    previous: Verdict | None
    verdict: Verdict
    reason: str
    streak: int


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of a replica; another container, endpoint or start is another one and is judged afresh."""

    replica_id: ReplicaId
    spec_hash: str
    endpoint: str
    since: datetime


def step(
    state: HealthState, probe: Probe, now: datetime, policy: Policy, *, suspected: bool = False
) -> tuple[HealthState, Transition | None]:
    """Take one probe into account. The transition is None exactly when the verdict stays.

    A refused connection that a gateway has met, too, is beyond doubt: nobody listens there.
    """
    match probe.outcome:
        case Outcome.OK:
            counted = replace(state, successes=state.successes + 1, failures=0)
            return _conclude(counted, _after_success(counted, policy), probe, now)
        case Outcome.LOADING:
            counted = replace(state, successes=0, failures=0)
            return _conclude(counted, Verdict.LOADING, probe, now)
        case Outcome.REFUSED | Outcome.TIMEOUT | Outcome.BROKEN | Outcome.BAD_STATUS:
            certain = suspected and probe.outcome is Outcome.REFUSED
            failures = max(state.failures + 1, policy.unhealthy_after if certain else 0)
            counted = replace(state, successes=0, failures=failures)
            verdict = _after_failure(counted, probe, now, policy)
            said = replace(probe, reason=f"{STARTING}{probe.reason}") if verdict is Verdict.LOADING else probe
            return _conclude(counted, verdict, said, now)
        case _:
            assert_never(probe.outcome)


def _after_success(state: HealthState, policy: Policy) -> Verdict:
    if state.verdict is Verdict.UNHEALTHY and state.successes < policy.healthy_after:
        return Verdict.UNHEALTHY
    return Verdict.HEALTHY


def _after_failure(state: HealthState, probe: Probe, now: datetime, policy: Policy) -> Verdict | None:
    never_healthy = state.verdict in (None, Verdict.LOADING)
    if never_healthy and probe.outcome in _NOT_UP_YET and now - state.started_at < policy.young:
        return Verdict.LOADING
    if state.failures >= policy.unhealthy_after:
        return Verdict.UNHEALTHY
    return state.verdict


def _conclude(
    state: HealthState, verdict: Verdict | None, probe: Probe, now: datetime
) -> tuple[HealthState, Transition | None]:
    if verdict is None:
        return state, None
    if verdict is state.verdict:
        supports = (probe.outcome is Outcome.OK) is (verdict is Verdict.HEALTHY)
        if not supports:
            return replace(state, streak=0), None
        return replace(state, reason=probe.reason, streak=state.streak + 1), None
    streak = max(state.successes if verdict is Verdict.HEALTHY else state.failures, 1)
    moved = replace(state, verdict=verdict, reason=probe.reason, since=now, streak=streak)
    return moved, Transition(state.verdict, verdict, probe.reason, streak)


def with_load(state: HealthState, load: EngineLoad) -> HealthState:
    """The engine said what it can take."""
    told = {"slots_total": load.slots_total, "context_per_slot": load.context_per_slot}
    return replace(state, load=state.load.model_copy(update=told))


def with_traffic(state: HealthState, traffic: EngineLoad, sampled_at: datetime | None = None) -> HealthState:
    """The engine said how busy it is."""
    told = {
        "running": traffic.running,
        "waiting": traffic.waiting,
        "work_total": traffic.work_total,
        "kv_usage": traffic.kv_usage,
    }
    return replace(state, load=state.load.model_copy(update={**told, "sampled_at": sampled_at}))


def next_delay(state: HealthState, policy: Policy) -> float:
    """Seconds until the next look, unless somebody suspects the replica before."""
    match state.verdict:
        case None | Verdict.LOADING:
            return policy.loading_interval_s
        case Verdict.HEALTHY:
            return policy.doubtful_interval_s if state.failures else policy.healthy_interval_s
        case Verdict.UNHEALTHY:
            return policy.doubtful_interval_s if state.successes else policy.unhealthy_interval_s
        case _:
            assert_never(state.verdict)


def incarnation_of(replica: ReplicaDocumentV1) -> Incarnation | None:
    """The incarnation to probe; None when the replica does not run or cannot be reached."""
    if replica.state is not ReplicaState.STARTED or replica.endpoint is None:
        return None
    return Incarnation(replica.id, replica.spec_hash, replica.endpoint, replica.since)


def draining_life(replica: ReplicaDocumentV1, stored: VerdictDocumentV1 | None) -> Incarnation | None:
    """The run that is about to be stopped, as far as its stored verdict tells: whoever takes it over follows its drain."""
    if replica.state is not ReplicaState.DRAINING or stored is None:
        return None
    life = Incarnation(replica.id, stored.spec_hash, stored.endpoint, stored.since)
    return life if is_draining(replica, life) else None


def is_draining(replica: ReplicaDocumentV1, incarnation: Incarnation) -> bool:
    """Whether this very run is about to be stopped: it is judged no more, only asked how busy it is."""
    same = (replica.spec_hash, replica.endpoint) == (incarnation.spec_hash, incarnation.endpoint)
    return replica.state is ReplicaState.DRAINING and same


def resume(incarnation: Incarnation, stored: VerdictDocumentV1 | None) -> HealthState:
    """Where to begin: at the stored verdict if it is about this incarnation, so that a restart of ours changes nothing."""
    if (
        stored is None
        or (stored.spec_hash, stored.endpoint) != (incarnation.spec_hash, incarnation.endpoint)
        or stored.since < incarnation.since
    ):
        return HealthState(started_at=incarnation.since)
    return HealthState(
        started_at=incarnation.since,
        verdict=stored.verdict,
        reason=stored.reason,
        since=stored.since,
        streak=stored.streak,
        load=stored.load,
    )


def to_document(replica: ReplicaDocumentV1, state: HealthState, version: int) -> VerdictDocumentV1 | None:
    """What the bucket should hold; None before the first conclusion."""
    if state.verdict is None or state.since is None or replica.endpoint is None:
        return None
    return VerdictDocumentV1(
        aggregateversion=version,
        replica_id=replica.id,
        model_id=replica.model_id,
        spec_hash=replica.spec_hash,
        endpoint=replica.endpoint,
        verdict=state.verdict,
        reason=state.reason,
        since=state.since,
        streak=max(state.streak, 1),
        load=state.load,
    )


def same_verdict(one: VerdictDocumentV1 | None, other: VerdictDocumentV1 | None) -> bool:
    """True when readers would see no difference: the streak and the version alone are no change."""
    if one is None or other is None:
        return one is other
    ignored = {"aggregateversion", "streak", "prober"}
    return one.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)
