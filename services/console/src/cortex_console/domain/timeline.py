"""States over time: which lasted how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cortex_console.domain.formatting import duration_text, moment
from cortex_console.domain.shapes import Row, row, text
from cortex_console.domain.states import Tone, model_tone


@dataclass(frozen=True, slots=True)
class Segment:
    """One state from a moment to another."""

    state: str
    tone: Tone
    begin: datetime
    end: datetime
    reason: str
    share: float
    """Of the whole line, 0 to 1."""

    @property
    def words(self) -> str:
        """For whoever points at it, or hears it."""
        lasted = duration_text(round((self.end - self.begin).total_seconds()))
        return f"{self.state} for {lasted} from {self.begin:%Y-%m-%d %H:%M:%S} UTC" + (
            f": {self.reason}" if self.reason else ""
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """A state and when it began."""

    at: datetime
    state: str
    tone: Tone
    reason: str = ""


def state_turns(events: Sequence[Row]) -> list[Turn]:
    """Of `model.state_changed` events in any order; the oldest first."""
    found: list[Turn] = []
    for event in events:
        data = row(event.get("data"))
        at = moment(data.get("since")) or moment(event.get("time"))
        if at is not None:
            state = text(data.get("state"))
            found.append(Turn(at, state, model_tone(state), text(data.get("reason"))))
    return sorted(found, key=lambda turn: turn.at)


def health_turns(history: Sequence[Row]) -> list[Turn]:
    """Of an upstream's history in any order; the oldest first."""
    found: list[Turn] = []
    for change in history:
        at = moment(change.get("at"))
        if at is not None:
            healthy = bool(change.get("healthy"))
            tone = Tone.GOOD if healthy else Tone.BAD
            found.append(Turn(at, "healthy" if healthy else "unhealthy", tone, text(change.get("reason"))))
    return sorted(found, key=lambda turn: turn.at)


def segments(turns: Sequence[Turn], begin: datetime, end: datetime) -> list[Segment]:
    """The line from `begin` to `end`; what was before the first turn is not known and not shown as anything."""
    length = (end - begin).total_seconds()
    if length <= 0 or not turns:
        return []
    made: list[Segment] = []
    following = [*[turn.at for turn in turns[1:]], end]
    for turn, until in zip(turns, following, strict=True):
        first, last = max(turn.at, begin), min(until, end)
        if last <= first:
            continue
        share = (last - first).total_seconds() / length
        made.append(Segment(turn.state, turn.tone, turn.at, until, turn.reason, share))
    return made


def unknown_share(turns: Sequence[Turn], begin: datetime, end: datetime) -> float:
    """The part of the line before anything is known."""
    length = (end - begin).total_seconds()
    if length <= 0 or not turns:
        return 1.0
    return max(0.0, min(1.0, (turns[0].at - begin).total_seconds() / length))
