"""Why a model is in its state: who asked, what was decided and refused, what containers, probes and states followed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.enums import ModelState
from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.why_words import Told, act_sentence, clock_time, event_sentence

MAX_DEPTH = 8
WITHOUT_ORCHESTRATOR_S = 15.0
_DESIRE = frozenset({"desired_state", "restart_generation", "replicas"})
_DECISIVE = frozenset({"model.start", "model.stop", "model.restart", "model.apply", "model.archive", "model.unarchive"})
_REGISTRY_EVENTS = frozenset({"model.created", "model.updated", "model.archived", "model.deleted"})
_DETAILS = (
    "reason",
    "exit_code",
    "oom_killed",
    "diagnosis",
    "restarts",
    "next_attempt_at",
    "log_tail",
    "tried",
    "would_fit",
    "asked_bytes",
    "container",
    "endpoint",
    "node",
    "image",
    "current_bytes",
    "total_bytes",
    "streak",
    "previous",
    "state",
)
_MAX_LINES = 20


class Kind(StrEnum):
    """What a node tells of."""

    REQUEST = "request"
    DECISION = "decision"
    CONTAINER = "container"
    PROBE = "probe"
    STATE = "state"
    OTHER = "other"


_KINDS: Mapping[str, Kind] = {
    "placement": Kind.DECISION,
    "container": Kind.CONTAINER,
    "upstream": Kind.PROBE,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A revision: somebody changed the model."""

    version: int
    action: str
    author: str
    at: datetime
    request_id: str | None = None
    address: str | None = None
    changed: tuple[str, ...] = ()
    follow_ups: int = 0
    """Events of other services that belong to it."""


@dataclass(frozen=True, slots=True)
class Present:
    """What is observed now. `state` is None while nothing can be."""

    name: str
    state: ModelState | None
    reason: str
    since: datetime | None
    diagnosis: Diagnosis | None = None


@dataclass(slots=True)
class WhyNode:
    """One thing that happened, and what followed from it."""

    kind: Kind
    sentence: str
    at: datetime
    event_id: str | None = None
    type: str | None = None
    causation_id: str | None = None
    replica_id: str | None = None
    after_s: float | None = None
    """Seconds after what it follows from."""
    details: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    children: list["WhyNode"] = field(default_factory=list["WhyNode"])


@dataclass(frozen=True, slots=True)
class Why:
    """The answer."""

    headline: str
    next_step: str
    present: Present
    version: int | None
    root: WhyNode | None
    later: tuple[WhyNode, ...]
    """Changes after it that did not bring the present state about."""
    omitted: int
    """Events in the middle of a long history that were left out."""


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one version. `events` in the order of the log; `omitted` of their middle are missing."""

    asked: Asked | None
    later: Sequence[Asked]
    events: Sequence[LoggedEvent]
    omitted: int = 0

    @property
    def events_followed(self) -> bool:
        """Whether anything but the change itself is known."""
        return any(
            event.topic not in _REGISTRY_EVENTS and event.topic != "model.state_changed" for event in self.events
        )


@dataclass(slots=True)
class _Placed:
    node: WhyNode
    parent: "_Placed | None"
    depth: int


def decisive(revisions: Sequence[Asked]) -> Asked | None:
    """The change that the present state goes back to, of those given newest first.

    It is the newest that asked for another state, or that anything followed from; else the newest of all.
    """
    for asked in revisions:
        if asked.action in _DECISIVE or asked.follow_ups or _DESIRE & set(asked.changed):
            return asked
    return revisions[0] if revisions else None


def build_why(present: Present, history: History, *, now: datetime, past: bool = False) -> Why:
    """Put the chain together.

    Args:
        past: an older version was asked for: the headline tells what it was, not what to do.
    """
    root = _tree(history)
    told = Told(history.asked.author, history.asked.action, history.asked.at, now) if history.asked else None
    if past and history.asked is not None:
        headline = act_sentence(history.asked.author, history.asked.action, history.asked.changed)
        headline, next_step = f"{headline} at {clock_time(history.asked.at, now)}.", ""
    else:
        headline, next_step = _conclude(present, history, told, now)
    later = tuple(_request_node(asked) for asked in history.later)
    version = history.asked.version if history.asked is not None else None
    return Why(headline, next_step, present, version, root, later, history.omitted)


def _tree(history: History) -> WhyNode | None:
    asked = history.asked
    if asked is None:
        return None
    root = _Placed(_request_node(asked), None, 0)
    placed: dict[str, _Placed] = {}
    lanes: dict[str, _Placed] = {}
    for event in history.events:
        if event.topic in _REGISTRY_EVENTS:
            if event.aggregate_version == asked.version:
                placed[event.event_id] = root
                root.node.event_id, root.node.type = event.event_id, event.type
            continue
        cause = placed.get(event.causation_id or "") or lanes.get(event.replica_id or "") or root
        one = _place(event, cause)
        placed[event.event_id] = one
        if one.node.kind is Kind.CONTAINER and event.replica_id is not None:
            lanes[event.replica_id] = one
    return root.node


def _place(event: LoggedEvent, cause: _Placed) -> _Placed:
    """Under its cause; beside it when both are steps of one container, so that a long life is a list and no stairs."""
    kind = kind_of(event.topic)
    parent = cause
    same_lane = kind is Kind.CONTAINER and cause.node.kind in (Kind.CONTAINER, Kind.DECISION)
    if same_lane and cause.node.replica_id in (event.replica_id, None):
        parent = cause.parent or cause
    while parent.depth >= MAX_DEPTH and parent.parent is not None:
        parent = parent.parent
    node = WhyNode(
        kind,
        event_sentence(event.topic, event.data),
        event.time,
        event.event_id,
        event.type,
        event.causation_id,
        event.replica_id,
        round((event.time - cause.node.at).total_seconds(), 3),
        _details(event),
    )
    parent.node.children.append(node)
    return _Placed(node, parent, parent.depth + 1)


def kind_of(topic: str) -> Kind:
    """What a topic tells of."""
    if topic == "model.state_changed":
        return Kind.STATE
    return _KINDS.get(topic.partition(".")[0], Kind.OTHER)


def _request_node(asked: Asked) -> WhyNode:
    details: dict[str, JsonValue] = {
        "actor": asked.author,
        "action": asked.action,
        "version": asked.version,
        "request_id": asked.request_id,
        "address": asked.address,
        "changed": list(asked.changed) or None,
    }
    given = {name: value for name, value in details.items() if value is not None}
    return WhyNode(Kind.REQUEST, f"{act_sentence(asked.author, asked.action, asked.changed)}.", asked.at, details=given)


def _details(event: LoggedEvent) -> Mapping[str, JsonValue]:
    details: dict[str, JsonValue] = {}
    for name in _DETAILS:
        value = event.data.get(name)
        if value is None or value is False or value in ("", [], {}):
            continue
        details[name] = value[-_MAX_LINES:] if isinstance(value, list) else value
    return details


def _conclude(present: Present, history: History, told: Told | None, now: datetime) -> tuple[str, str]:
    """The headline and what to do next."""
    name, who = present.name, f" {told.sentence()}" if told is not None else ""
    logs = f"Read what the engine said: cortex model logs {name}."
    match present.state:
        case None:
            return f"What {name} does now cannot be observed: {present.reason}.", "Look at cortex status."
        case ModelState.RUNNING:
            return f"{name} runs: {present.reason}.{who}", "Nothing to do."
        case ModelState.STOPPED:
            return _stopped(present, history, told)
        case ModelState.STOPPING:
            return f"{name} is stopping: {present.reason}.{who}", "Wait: its engines finish what they are answering."
        case ModelState.FAILED | ModelState.DEGRADED:
            diagnosis = present.diagnosis or _last_diagnosis(history.events)
            if diagnosis is None and _rejected(history.events) is not None:
                return _on_its_way(present, history, who, now)
            verb = "failed" if present.state is ModelState.FAILED else "is degraded"
            reason = diagnosis.message if diagnosis is not None else present.reason
            return f"{name} {verb}: {reason.rstrip('.')}.{who}", diagnosis.fix if diagnosis is not None else logs
        case _:
            return _on_its_way(present, history, who, now)


def _stopped(present: Present, history: History, told: Told | None) -> tuple[str, str]:
    start = f"Start it: cortex model start {present.name}."
    if told is None:
        return f"{present.name} is stopped.", start
    if history.asked is not None and history.asked.action not in _DECISIVE and not history.events_followed:
        return f"{present.name} has not been asked to run. {told.sentence()}", start
    return f"{present.name} is {present.reason or 'stopped'}. {told.sentence()}", start


def _on_its_way(present: Present, history: History, who: str, now: datetime) -> tuple[str, str]:
    name, state = present.name, present.state
    rejected = _rejected(history.events)
    if rejected is not None:
        fits = [str(one) for one in _list(rejected.data.get("would_fit"))]
        step = f"This would fit: {'; '.join(fits)}." if fits else "Free memory: stop another model, or ask for less."
        reason = str(rejected.data.get("reason", present.reason)).rstrip(".")
        return f"{name} cannot start: {reason}.{who}", step
    headline = f"{name} is {state}: {present.reason}.{who}"
    asked = history.asked
    waited = (now - asked.at).total_seconds() if asked is not None else 0.0
    if state is ModelState.STARTING and not history.events_followed and waited > WITHOUT_ORCHESTRATOR_S:
        return headline, "No orchestrator has taken it up: see cortex status."
    return headline, f"Wait, and watch it: cortex events --follow --model {name}."


def _rejected(events: Sequence[LoggedEvent]) -> LoggedEvent | None:
    """The last refusal, unless a container came after it."""
    for event in reversed(events):
        if event.topic == "placement.rejected":
            return event
        if event.topic in ("container.created", "container.started", "container.pulling", "container.adopted"):
            return None
    return None


def _last_diagnosis(events: Sequence[LoggedEvent]) -> Diagnosis | None:
    for event in reversed(events):
        given = event.data.get("diagnosis")
        if event.topic == "container.failed" and isinstance(given, dict):
            parts = [str(given.get(part) or "") for part in ("code", "message", "fix")]
            return Diagnosis(code=parts[0], message=parts[1], fix=parts[2])
    return None


def _list(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else []
