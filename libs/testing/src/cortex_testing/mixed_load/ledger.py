"""What clients saw of their requests, in the words of the usage records."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class End(StrEnum):
    """How a request ended for its client."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """With an error instead of an answer."""
    BROKEN = "broken"
    """With an error event in the middle of a stream."""
    HUNG_UP = "hung up"
    """By the client."""
    UNREACHED = "unreached"
    """Nothing listened there; another gateway was asked instead."""
    UNSENT = "unsent"
    """The client left before its request was on the wire: no gateway can know of it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request. Tokens are what the client was told, or counted where it is told nothing."""

    kind: str
    end: End
    status: int = 0
    prompt: int = 0
    completion: int = 0
    code: str = ""
    took_s: float = 0.0


@dataclass
class Ledger:
    """All requests of a run, and what must not happen."""

    seen: list[Seen] = field(default_factory=list[Seen])
    faults: list[str] = field(default_factory=list[str])

    def of(self, kind: str) -> list[Seen]:
        return [one for one in self.seen if one.kind == kind and one.end not in (End.UNREACHED, End.UNSENT)]

    def ends(self) -> Counter[str]:
        """How often which end."""
        return Counter(one.end.value for one in self.seen)

    def errors(self) -> Counter[str]:
        """Which errors clients were told, by status and code."""
        told = (one for one in self.seen if one.end in (End.REFUSED, End.BROKEN))
        return Counter(f"{one.status} {one.code}" if one.end is End.REFUSED else f"stream {one.code}" for one in told)


def percentile(values: Iterable[float], part: float) -> float:
    """Of nothing: 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
