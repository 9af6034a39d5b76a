"""Why a model is as it is: the registry's tree of causes, ready to be drawn."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.event_words import Happening
from cortex_console.domain.formatting import duration_text
from cortex_console.domain.shapes import Row, number, row, rows, text, texts
from cortex_console.domain.states import Tone

_ICONS = {
    "request": "o_person",
    "decision": "o_rule",
    "container": "o_memory",
    "probe": "o_monitor_heart",
    "state": "o_flag",
    "other": "o_circle",
}
_SHOWN: Mapping[str, str] = {
    "action": "Act",
    "request_id": "Request",
    "address": "From",
    "changed": "Changed",
    "container": "Engine",
    "endpoint": "Address",
    "node": "Host",
    "image": "Image",
    "exit_code": "Exit code",
    "restarts": "Restarts",
    "tried": "Tried",
    "would_fit": "Would fit",
}
_COMMANDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Read what the engine said: cortex model logs .*$"), "Read what the engine said, below Logs."),
    (re.compile(r"Start it: cortex model start .*$"), "Start it."),
    (re.compile(r"Wait, and watch it: cortex events .*$"), "Wait: this page follows it."),
    (re.compile(r"see cortex status\.?$"), "see System."),
    (re.compile(r"Look at cortex status\.?$"), "See System."),
)


@dataclass(frozen=True, slots=True)
class WhyStep:
    """One thing that happened, and what followed from it."""

    icon: str
    tone: Tone
    sentence: str
    at: str
    after: str
    """How long after what it follows from; empty for the first."""
    facts: Mapping[str, str]
    log_tail: tuple[str, ...]
    children: tuple["WhyStep", ...]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read a node of the answer."""
        details = row(answer.get("details"))
        after = number(answer.get("after_s"))
        return cls(
            icon=_ICONS.get(text(answer.get("kind")), _ICONS["other"]),
            tone=Happening.of({"type": answer.get("type"), "data": details}).tone
            if answer.get("type")
            else Tone.NEUTRAL,
            sentence=text(answer.get("sentence")),
            at=text(answer.get("at")),
            after=f"+{duration_text(max(0.0, after))}" if after is not None else "",
            facts={label: _value(details.get(name)) for name, label in _SHOWN.items() if _value(details.get(name))},
            log_tail=tuple(texts(details.get("log_tail"))),
            children=tuple(cls.of(child) for child in rows(answer.get("children"))),
        )


@dataclass(frozen=True, slots=True)
class Why:
    """The whole answer."""

    headline: str
    next_step: str
    root: WhyStep | None
    later: tuple[WhyStep, ...]
    omitted: int

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read `GET /admin/models/{ref}/why`."""
        root = row(answer.get("root"))
        return cls(
            headline=text(answer.get("headline")),
            next_step=in_console(text(answer.get("next_step"))),
            root=WhyStep.of(root) if root else None,
            later=tuple(WhyStep.of(one) for one in rows(answer.get("later"))),
            omitted=int(number(answer.get("omitted")) or 0),
        )


def in_console(step: str) -> str:
    """A next step without the commands of a terminal that this page makes needless."""
    for pattern, instead in _COMMANDS:
        step = pattern.sub(instead, step)
    return step


def _value(value: object) -> str:
    return "" if value == [] else ", ".join(texts(value)) or text(value)
