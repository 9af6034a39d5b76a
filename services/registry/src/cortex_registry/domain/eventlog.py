"""The event log: what a row is, what thins progress out, which events a filter wants."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from pydantic import Field, JsonValue

from cortex_contracts.envelope import RawEnvelope
from cortex_kit.errors import DomainError, PermanentError

PROGRESS_WINDOW_S = 30
"""Of the progress of one pull or merge, one event per window stays in the log: the last."""

EVERYTHING = "*"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPE = re.compile(r"[a-z0-9_-]{1,60}(\.[a-z0-9_-]{1,60}){1,4}")
_VERSION = re.compile(r"\.v\d+$")
_PATTERN = re.compile(r"([a-z0-9_-]{1,60}|\*)(\.([a-z0-9_-]{1,60}|\*)){0,4}(\.>)?|>")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PROGRESS: Mapping[str, tuple[str, ...]] = {
    "container.pulling": ("replica_id", "image"),
    "gguf.merging": ("path",),
}


class LoggedEnvelope(RawEnvelope):
    """An envelope as it is kept: payload not interpreted, so that events of newer services are kept, too."""

    traceparent: str | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)  # pyright: ignore[reportIncompatibleVariableOverride]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that may become a row."""

    event_id: str
    type: str
    topic: str
    subject: str
    source: str
    time: datetime
    aggregate_version: int
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    model_id: str | None
    replica_id: str | None
    key_id: str | None
    progress: str | None
    data: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A row. `sequence` is the public cursor; it grows in the order of commits."""

    sequence: int
    event_id: str
    type: str
    topic: str
    subject: str
    source: str
    time: datetime
    aggregate_version: int
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    model_id: str | None
    replica_id: str | None
    key_id: str | None
    data: Mapping[str, JsonValue]

    def cloud_event(self) -> dict[str, JsonValue]:
        """CloudEvents 1.0 in structured JSON, with `sequence` as the extension of that name."""
        event: dict[str, JsonValue] = {
            "specversion": "1.0",
            "id": self.event_id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": dict(self.data),
            "aggregateversion": self.aggregate_version,
            "correlationid": self.correlation_id,
            "causationid": self.causation_id,
            "traceparent": self.traceparent,
            "sequence": str(self.sequence),
        }
        return {name: value for name, value in event.items() if value is not None}


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events somebody wants; None or empty means any."""

    topics: tuple[str, ...] = ()
    """Patterns: words with dots between, `*` is one word, a last `>` the rest; `*` alone is everything."""
    model_id: str | None = None
    replica_id: str | None = None
    key_id: str | None = None
    correlation_id: str | None = None
    source: str | None = None
    """A service's name, or a whole source."""
    since: datetime | None = None

    def wants(self, event: LoggedEvent) -> bool:
        """Whether the event passes every part."""
        exact = (
            (self.model_id, event.model_id),
            (self.replica_id, event.replica_id),
            (self.key_id, event.key_id),
            (self.correlation_id, event.correlation_id),
        )
        if any(wanted is not None and wanted != given for wanted, given in exact):
            return False
        if self.source is not None and self.source not in (event.source, service_of(event.source)):
            return False
        if self.since is not None and event.time < self.since:
            return False
        return not self.topics or topic_matches(self.topics, event.topic)


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of the log."""

    events: Sequence[LoggedEvent]
    head: int
    """The newest sequence there was before the page was read."""
    pruned: int
    """Rows up to here may have been deleted because of their age."""


def service_of(source: str) -> str:
    """`cortex/<service>/<instance>` -> the service."""
    parts = source.split("/")
    return parts[1] if len(parts) > 2 else source


def check_patterns(patterns: Collection[str]) -> tuple[str, ...]:
    """Patterns as they are kept: a version at the end is dropped.

    Raises:
        DomainError: 422 `invalid_pattern`.
    """
    checked: list[str] = []
    for pattern in patterns:
        bare = _VERSION.sub("", pattern)
        if _PATTERN.fullmatch(bare) is None:
            message = f"{pattern[:100]!r} is no event type: use words like model.created, container.* or *."
            raise DomainError("invalid_pattern", message, status=422, details={"pattern": pattern[:100]})
        checked.append(bare)
    return tuple(dict.fromkeys(checked))


def topic_matches(patterns: Iterable[str], topic: str) -> bool:
    """Whether any pattern matches the topic."""
    words = topic.split(".")
    return any(_matches(pattern, words) for pattern in patterns)


def _matches(pattern: str, words: Sequence[str]) -> bool:
    if pattern in (EVERYTHING, ">"):
        return True
    wanted = pattern.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(w in ("*", word) for w, word in zip(wanted, words, strict=True))


def named_topics(patterns: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The topics among those known that a subscription gets: progress only when it is named word by word."""
    return tuple(
        topic for topic in known if (topic in patterns if topic in _PROGRESS else topic_matches(patterns, topic))
    )


def new_event(raw: bytes) -> NewEvent:
    """Read a message of the stream.

    Raises:
        pydantic.ValidationError: not an envelope.
        PermanentError: an id or a type that no event of ours has.
    """
    envelope = LoggedEnvelope.model_validate_json(raw)
    if _ID.fullmatch(envelope.id) is None or _TYPE.fullmatch(envelope.type) is None:
        raise PermanentError("the event's id or type is malformed")
    topic = _VERSION.sub("", envelope.type)
    data = cast("dict[str, JsonValue]", _storable(envelope.data))
    return NewEvent(
        event_id=envelope.id,
        type=envelope.type,
        topic=topic,
        subject=_text(envelope.subject, 256) or "",
        source=_text(envelope.source, 256) or "",
        time=envelope.time,
        aggregate_version=min(max(envelope.aggregateversion, 0), 2**63 - 1),
        correlation_id=_text(envelope.correlationid, 128),
        causation_id=_text(envelope.causationid, 128),
        traceparent=_text(envelope.traceparent, 128),
        model_id=_reference(data, "model_id", 64),
        replica_id=_reference(data, "replica_id", 128),
        key_id=_reference(data, "key_id", 64),
        progress=_progress_key(topic, data),
        data=data,
    )


def without_overtaken(events: Sequence[NewEvent]) -> list[NewEvent]:
    """The events in their order, each once, without progress that a later event of the same batch overtakes."""
    unique = {event.event_id: event for event in events}
    last: dict[tuple[str, int], NewEvent] = {}
    for event in unique.values():
        window = _window(event)
        if window is not None and (window not in last or last[window].time <= event.time):
            last[window] = event
    return [event for event in unique.values() if (window := _window(event)) is None or last[window] is event]


def _window(event: NewEvent) -> tuple[str, int] | None:
    if event.progress is None:
        return None
    return event.progress, int(event.time.timestamp()) // PROGRESS_WINDOW_S


def _progress_key(topic: str, data: Mapping[str, JsonValue]) -> str | None:
    fields = _PROGRESS.get(topic)
    if fields is None:
        return None
    return ":".join([topic, *(str(data.get(field)) for field in fields)])[:512]


def _reference(data: Mapping[str, JsonValue], name: str, length: int) -> str | None:
    value = data.get(name)
    return value[:length] if isinstance(value, str) and value else None


def _text(value: str | None, length: int) -> str | None:
    return _UNSTORABLE.sub("\ufffd", value)[:length] if value is not None else None


def _storable(value: Any) -> Any:
    """JSON without what Postgres cannot hold: an engine's output may contain anything."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_storable(item) for item in cast("list[Any]", value)]
    return value


def with_topics(wanted: EventFilter, patterns: Collection[str]) -> EventFilter:
    """The same filter for checked patterns; raises as `check_patterns`."""
    return replace(wanted, topics=check_patterns(patterns))
