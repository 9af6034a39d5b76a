"""How busy replicas are with requests of others, from what their engines said a while ago. Pure."""

from dataclasses import dataclass

from cortex_contracts.documents import EngineLoad

FRESH_S = 6.0
"""A report counts in full for so long; the health service looks every few seconds and tells of changes only."""
STALE_S = 30.0
"""A report this old counts for nothing: whatever it told of has ended."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an engine said, without what was ours of it."""

    load: EngineLoad
    foreign: float
    noted_at: float


def note_report(load: EngineLoad, own_peak: int, now: float, previous: Report | None) -> Report:
    """Take a report into account. `own_peak`: the most we had there in the last seconds.

    The engine counts our requests with the others', at some moment shortly before: what exceeds our peak is not ours. An unchanged report keeps its age.
    """
    if previous is not None and previous.load == load:
        return previous
    busy = (load.running or 0) + (load.waiting or 0)
    return Report(load, max(0, busy - own_peak), now)


def blend(previous: Report | None, foreign: int, now: float) -> Report:
    """How many slots of a model to leave to others, who are told to use so many.

    It follows what they use by halves: gateways that make room for each other at the same moment would otherwise all come
    back at the same moment, for ever.
    """
    left = foreign if previous is None else (previous.foreign + foreign) / 2
    return Report(EngineLoad(), left, now)


def foreign_at(report: Report, now: float) -> int:
    """Requests of others there are likely to be now: all of them at first, then fewer and fewer."""
    age = now - report.noted_at
    if age <= FRESH_S:
        return round(report.foreign)
    if age >= STALE_S:
        return 0
    return round(report.foreign * (STALE_S - age) / (STALE_S - FRESH_S))
