"""Events in a line each: what happened, to whom, how grave it is; and how they follow from each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.shapes import Row, number, row, text, texts
from cortex_console.domain.states import Tone, model_tone

_TONES: Mapping[str, Tone] = {
    "container.failed": Tone.BAD,
    "placement.rejected": Tone.BAD,
    "upstream.unhealthy": Tone.BAD,
    "gguf.rejected": Tone.BAD,
    "upstream.suspected": Tone.WARN,
    "webhook.disabled": Tone.WARN,
    "upstream.healthy": Tone.GOOD,
    "container.started": Tone.GOOD,
    "container.adopted": Tone.GOOD,
    "container.pulling": Tone.BUSY,
    "container.created": Tone.BUSY,
    "gguf.merging": Tone.BUSY,
    "gguf.merged": Tone.GOOD,
}
MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the log."""

    sequence: int
    id: str
    topic: str
    """Type without its version, like `container.failed`."""
    at: str
    source: str
    model_id: str
    replica_id: str
    correlation: str
    causation: str
    data: Row

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/events`."""
        sequence = answer.get("sequence")
        return cls(
            sequence=sequence if isinstance(sequence, int) else 0,
            id=text(answer.get("id")),
            topic=topic(text(answer.get("type"))),
            at=text(answer.get("time")),
            source=text(answer.get("source")).removeprefix("cortex/"),
            model_id=text(answer.get("model_id")),
            replica_id=text(answer.get("replica_id")),
            correlation=text(answer.get("correlationid")),
            causation=text(answer.get("causationid")),
            data=row(answer.get("data")),
        )

    @property
    def tone(self) -> Tone:
        """How grave it is."""
        if self.topic == "model.state_changed":
            return model_tone(text(self.data.get("state")))
        return _TONES.get(self.topic, Tone.NEUTRAL)

    @property
    def words(self) -> str:
        """What happened, without the type."""
        told = _WORDS.get(self.topic, _anything)(self.data)
        return " ".join(told.split())


def topic(type_: str) -> str:
    """`model.created.v1` -> `model.created`."""
    head, _, version = type_.rpartition(".")
    return head if version[:1] == "v" and version[1:].isdecimal() else type_


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern like `container.*` takes a topic; `*` alone takes everything."""
    if pattern in ("", "*"):
        return True
    wanted, given = pattern.split("."), name.split(".")
    return len(wanted) == len(given) and all(one in ("*", other) for one, other in zip(wanted, given, strict=True))


def chain(happenings: Sequence[Happening]) -> list[tuple[int, Happening]]:
    """Events of one request with their depth: each below what it follows from, in the order of time."""
    ordered = sorted(happenings, key=lambda one: one.sequence)
    known = {one.id for one in ordered}
    children: dict[str, list[Happening]] = {}
    roots: list[Happening] = []
    for one in ordered:
        if one.causation in known and one.causation != one.id:
            children.setdefault(one.causation, []).append(one)
        else:
            roots.append(one)
    made: list[tuple[int, Happening]] = []
    waiting = [(0, one) for one in reversed(roots)]
    while waiting:
        depth, one = waiting.pop()
        made.append((depth, one))
        waiting += [(min(depth + 1, MAX_DEPTH), child) for child in reversed(children.pop(one.id, []))]
    return made


def _state_changed(data: Row) -> str:
    before = text(data.get("previous"))
    arrow = f"{before} → {text(data.get('state'))}" if before else text(data.get("state"))
    return _with(arrow, data.get("reason"))


def _failed(data: Row) -> str:
    diagnosis = row(data.get("diagnosis"))
    message = text(diagnosis.get("message")) or text(data.get("reason"))
    code = data.get("exit_code")
    return message + (f" (exit code {code})" if code is not None else "")


def _pulling(data: Row) -> str:
    done, total = number(data.get("current_bytes")), number(data.get("total_bytes"))
    return f"{text(data.get('image'))}: {bytes_text(done)}" + (f" of {bytes_text(total)}" if total else "")


def _rejected(data: Row) -> str:
    fits = texts(data.get("would_fit"))
    return text(data.get("reason")) + (f" Would fit: {'; '.join(fits)}." if fits else "")


def _started(data: Row) -> str:
    return f"{text(data.get('container'))} at {text(data.get('endpoint'), 'no address')}"


def _node(data: Row) -> str:
    gpus = data.get("gpu_count")
    return f"{text(data.get('node'))}: {gpus} GPUs, {bytes_text(number(data.get('memory_available')))} free"


def _merging(data: Row) -> str:
    return f"{text(data.get('path'))}: {bytes_text(number(data.get('done_bytes')))} of {bytes_text(number(data.get('total_bytes')))}"


def _anything(data: Row) -> str:
    name = text(data.get("name")) or text(data.get("container")) or text(data.get("path"))
    changed = ", ".join(texts(data.get("changed")))
    return _with(_with(name, changed), data.get("reason"))


def _with(head: str, more: object) -> str:
    rest = text(more)
    return f"{head}: {rest}" if head and rest else head or rest


_WORDS: Mapping[str, Callable[[Row], str]] = {
    "model.state_changed": _state_changed,
    "container.failed": _failed,
    "container.pulling": _pulling,
    "container.started": _started,
    "container.adopted": _started,
    "placement.rejected": _rejected,
    "node.updated": _node,
    "gguf.merging": _merging,
}
