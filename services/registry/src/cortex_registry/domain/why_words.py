"""Events and acts in plain English, one sentence each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

Data = Mapping[str, JsonValue]

_ACTS: Mapping[str, str] = {
    "model.create": "created it",
    "model.start": "asked it to run",
    "model.stop": "asked it to stop",
    "model.restart": "asked for a restart",
    "model.apply": "applied its settings",
    "model.delete": "deleted it",
    "model.archive": "archived it",
    "model.unarchive": "took it out of the archive",
    "model.clone": "cloned it",
    "model.import": "imported it",
    "model.rollback": "rolled it back",
}
_MAX_TEXT = 400


@dataclass(frozen=True, slots=True)
class Told:
    """Who did what, when."""

    author: str
    action: str
    at: datetime
    now: datetime

    def sentence(self) -> str:
        return f"{self.author} {act_words(self.action)} at {clock_time(self.at, self.now)}."


def act_words(action: str, changed: Sequence[str] = ()) -> str:
    """`asked it to run`"""
    known = _ACTS.get(action)
    if known is not None:
        return known
    if action == "model.update":
        return f"changed {_joined(changed)}" if changed else "changed it"
    return f"did {action}"


def act_sentence(author: str, action: str, changed: Sequence[str]) -> str:
    """Without the dot at the end."""
    return f"{author} {act_words(action, changed)}"


def clock_time(at: datetime, now: datetime) -> str:
    """The time of day; with the date when it was on another day."""
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def event_sentence(topic: str, data: Data) -> str:
    """One sentence for an event; one of an unknown type is named."""
    words = _WORDS.get(topic)
    sentence = words(data) if words is not None else f"{topic} happened"
    return sentence.rstrip(". ") + "."


def _rejected(data: Data) -> str:
    fits = data.get("would_fit")
    hint = f"; this would fit: {_joined([str(one) for one in fits])}" if isinstance(fits, list) and fits else ""
    return f"No place was found for replica {data.get('ordinal', '?')}: {_text(data, 'reason')}{hint}"


def _pulling(data: Data) -> str:
    done, total = data.get("current_bytes"), data.get("total_bytes")
    share = ""
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        share = f", {min(100, 100 * done // total)} %"
    return f"The image {_text(data, 'image')} was pulled for {_replica(data)}{share}"


def _created(data: Data) -> str:
    return f"{_text(data, 'container')} was created for {_replica(data)} on node {_text(data, 'node')}"


def _started(data: Data) -> str:
    return f"The engine of {_replica(data)} started on node {_text(data, 'node')}"


def _adopted(data: Data) -> str:
    return f"The running engine of {_replica(data)} was found and kept"


def _stopped(data: Data) -> str:
    code = data.get("exit_code")
    end = f" (exit code {code})" if code is not None else ""
    return f"The engine of {_replica(data)} stopped: {_text(data, 'reason')}{end}"


def _failed(data: Data) -> str:
    code, reason = data.get("exit_code"), _text(data, "reason")
    facts = [f"exit code {code}"] if code is not None and "exit" not in reason else []
    facts += ["killed for want of memory"] if data.get("oom_killed") else []
    sentence = f"{_capital(_replica(data))} failed: {reason}" + (f" ({', '.join(facts)})" if facts else "")
    diagnosis = data.get("diagnosis")
    if isinstance(diagnosis, dict):
        message, fix = str(diagnosis.get("message") or ""), str(diagnosis.get("fix") or "")
        told = "" if not message or message in reason else f". {message.rstrip('.')}"
        sentence += told + (f". {fix}" if fix else "")
    return sentence[: 2 * _MAX_TEXT]


def _removed(data: Data) -> str:
    reason = _text(data, "reason")
    return f"The engine of {_replica(data)} was removed" + (f": {reason}" if reason else "")


def _healthy(data: Data) -> str:
    return f"{_capital(_replica(data))} answers its health probe: {_text(data, 'reason')}"


def _unhealthy(data: Data) -> str:
    return f"{_capital(_replica(data))} does not answer its health probe well: {_text(data, 'reason')}"


def _suspected(data: Data) -> str:
    return f"The gateway could not reach {_replica(data)}: {_text(data, 'reason')}"


def _state_changed(data: Data) -> str:
    before = f" after {data['previous']}" if data.get("previous") else ""
    return f"The model became {_text(data, 'state')}{before}: {_text(data, 'reason')}"


def _demanded(data: Data) -> str:
    return f"A request for {_text(data, 'served_model_name')} arrived while it did not run"


_WORDS: Mapping[str, Callable[[Data], str]] = {
    "placement.rejected": _rejected,
    "container.pulling": _pulling,
    "container.created": _created,
    "container.started": _started,
    "container.adopted": _adopted,
    "container.stopped": _stopped,
    "container.failed": _failed,
    "container.removed": _removed,
    "upstream.healthy": _healthy,
    "upstream.unhealthy": _unhealthy,
    "upstream.suspected": _suspected,
    "model.state_changed": _state_changed,
    "model.demanded": _demanded,
}


def _replica(data: Data) -> str:
    ordinal = data.get("ordinal")
    if ordinal is None:
        ordinal = str(data.get("replica_id") or "?").rpartition("-")[2]
    return f"replica {ordinal}"


def _text(data: Data, name: str) -> str:
    value = data.get(name)
    text = " ".join(str(value).split()) if value is not None else ""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts)
