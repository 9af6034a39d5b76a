"""Who is served next when a model is busy. Pure: time comes in, tickets go out."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from math import ceil

MAX_PACE_S = 1.0
MIN_SHARE = 0.25
"""Of a model's slots a gateway may always use so many, whatever others seem to use: figures of others grow old."""


@dataclass(frozen=True, slots=True, order=True)
class Ticket:
    """A place in the line. The lowest rank is served first; equal ranks in order of arrival."""

    rank: float
    number: int
    who: str = field(compare=False)


class WaitLine:
    """Requests that wait for a slot of one model, the next one first.

    A rank is a moment: when the request came, plus a handicap for its class. So a batch request goes before everything
    interactive that came a handicap later: it is never starved. Further requests of the same key are ranked `pace`
    apart, the time that one request takes, so that keys take turns however many requests each has waiting.
    """

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._number = 0
        self._latest: dict[str, tuple[float, int]] = {}
        """Per key: its highest rank, and how many of its tickets wait."""

    def __len__(self) -> int:
        return len(self._tickets)

    def rank(self, who: str, moment: float, pace: float) -> float:
        """The rank a request would get."""
        latest = self._latest.get(who)
        return moment if latest is None else max(moment, latest[0] + pace)

    def join(self, who: str, moment: float, pace: float = 0.0) -> Ticket:
        """`moment` is the time of arrival plus the handicap."""
        rank = self.rank(who, moment, pace)
        self._number += 1
        ticket = Ticket(rank, self._number, who)
        insort(self._tickets, ticket)
        waiting = self._latest.get(who, (0.0, 0))[1]
        self._latest[who] = (rank, waiting + 1)
        return ticket

    def first(self) -> Ticket | None:
        return self._tickets[0] if self._tickets else None

    def last(self) -> Ticket | None:
        return self._tickets[-1] if self._tickets else None

    def leave(self, ticket: Ticket) -> bool:
        """False when the ticket is not in the line (any more)."""
        at = bisect_left(self._tickets, ticket)
        if at >= len(self._tickets) or self._tickets[at] != ticket:
            return False
        del self._tickets[at]
        rank, waiting = self._latest[ticket.who]
        if waiting > 1:
            self._latest[ticket.who] = (rank, waiting - 1)
        else:
            del self._latest[ticket.who]
        return True


def room(capacity: int, foreign: int) -> int:
    """How many requests this gateway may have in flight at a model whose engines work on others' requests, too."""
    return max(1, ceil(capacity * MIN_SHARE), capacity - foreign)


class ServiceTime:
    """How long a request holds its slot, on average, giving more weight to the last ones."""

    __slots__ = ("mean_s",)

    def __init__(self) -> None:
        self.mean_s: float | None = None

    def note(self, seconds: float) -> None:
        self.mean_s = seconds if self.mean_s is None else self.mean_s + 0.1 * (seconds - self.mean_s)

    def pace(self, slots: int) -> float:
        """Seconds between two requests served."""
        return 0.0 if self.mean_s is None else min(MAX_PACE_S, self.mean_s / max(1, slots))

    def wait_s(self, waiting: int, slots: int) -> int:
        """Whole seconds after which one more request would probably be served, between 1 and 60."""
        if self.mean_s is None:
            return 1
        return max(1, min(60, ceil(self.mean_s * (waiting + 1) / max(1, slots))))
