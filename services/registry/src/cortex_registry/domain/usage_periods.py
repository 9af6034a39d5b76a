"""Hours, days and months of UTC, and which of them answer a question about a window.

A window is covered by the coarsest periods whose sums are known to be whole; what sticks out at its ends, and what is not
summed yet, comes from finer ones, and at last from the records themselves. So an answer is exact whatever the window.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

MAX_PIECES = 24
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Grain(IntEnum):
    """How coarse."""

    RECORD = 0
    HOUR = 1
    DAY = 2
    MONTH = 3


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` up to, but without, `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a window, and what it is read from."""

    grain: Grain
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Whole:
    """Days and months (their first moments) whose sums hold every record."""

    days: Collection[datetime] = frozenset()
    months: Collection[datetime] = frozenset()


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    return hour_of(moment).replace(hour=0)


def month_of(moment: datetime) -> datetime:
    return day_of(moment).replace(day=1)


def next_month(month: datetime) -> datetime:
    return month_of(month + timedelta(days=32))


def lock_number(grain: str, period: datetime) -> int:
    """A number per day and per month, below 2^31 and without collisions."""
    if grain == "month":
        return 10_000_000 + period.year * 12 + period.month
    return 1_000_000 + (period - _EPOCH).days


def cover(window: Window, whole: Whole, *, coarsest: Grain = Grain.MONTH, hours: bool = True) -> tuple[Piece, ...]:
    """Pieces that make up the window, oldest first, each as coarse as may be.

    Args:
        whole: what may be used of days and months.
        coarsest: nothing coarser than this is used.
        hours: whether sums by hour can answer; distributions have none.
    """
    pieces = _merged(window, whole, coarsest, hours)
    if len(pieces) > MAX_PIECES:  # days that are whole and days that are not take turns: fine ones answer for all
        return _merged(window, whole, min(coarsest, Grain.HOUR), hours)
    return pieces


def _merged(window: Window, whole: Whole, coarsest: Grain, hours: bool) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    at = window.since
    while at < window.until:
        piece = _piece(at, window.until, whole, coarsest, hours)
        if pieces and pieces[-1].grain is piece.grain:
            pieces[-1] = Piece(piece.grain, pieces[-1].since, piece.until)
        else:
            pieces.append(piece)
        at = piece.until
    return tuple(pieces)


def _piece(at: datetime, until: datetime, whole: Whole, coarsest: Grain, hours: bool) -> Piece:
    day, month = day_of(at), month_of(at)
    if coarsest >= Grain.MONTH and at == month and at in whole.months and next_month(month) <= until:
        return Piece(Grain.MONTH, at, next_month(month))
    if coarsest >= Grain.DAY and at == day and at in whole.days and day + _DAY <= until:
        return Piece(Grain.DAY, at, day + _DAY)
    if hours and coarsest >= Grain.HOUR:
        hour = hour_of(at)
        if at == day and day + _DAY <= until:
            return Piece(Grain.HOUR, at, day + _DAY)
        if at == hour and hour + _HOUR <= until:
            return Piece(Grain.HOUR, at, hour + _HOUR)
        return Piece(Grain.RECORD, at, min(hour + _HOUR, until))
    return Piece(Grain.RECORD, at, min(day + _DAY, until))


@dataclass(frozen=True, slots=True)
class Period:
    """A `day` or a `month` by its first moment."""

    grain: str
    start: datetime


def end_of(period: Period) -> datetime:
    """The first moment after it."""
    return next_month(period.start) if period.grain == "month" else period.start + _DAY
