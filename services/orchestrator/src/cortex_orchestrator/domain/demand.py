"""When an on-demand model is awake. Pure: usage in, usage out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad

DEFAULT_IDLE_S = 600
RECENT = timedelta(hours=1)
MAX_REMEMBERED = 100


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one model: when it was last asked for or at work, and what its engines had done by then."""

    used_at: datetime
    work: Mapping[ReplicaId, int] = field(default_factory=dict[ReplicaId, int])
    demands: tuple[datetime, ...] = ()
    """Of the last hour, oldest first."""


def demanded(usage: Usage | None, at: datetime, now: datetime) -> Usage:
    """A request arrived at `at` for the model that did not run."""
    before = usage or Usage(at)
    recent = tuple(moment for moment in before.demands if now - moment < RECENT)
    return Usage(max(before.used_at, at), before.work, (*recent, at)[-MAX_REMEMBERED:])


def observed(usage: Usage | None, loads: Mapping[ReplicaId, EngineLoad | None], now: datetime) -> Usage:
    """The model's running replicas and what their engines say; None while nothing is known, which counts as work."""
    work = {replica: load.work_total for replica, load in loads.items() if load is not None and load.work_total}
    if usage is None:
        return Usage(now, work)
    at_work = any(is_at_work(load) or _has_grown(usage, replica, load) for replica, load in loads.items())
    return Usage(now if at_work else usage.used_at, work, usage.demands)


def is_at_work(load: EngineLoad | None) -> bool:
    """Whether requests are in flight; not knowing is no proof that there are none."""
    return load is None or load.running is None or load.running > 0 or bool(load.waiting)


def _has_grown(usage: Usage, replica: ReplicaId, load: EngineLoad | None) -> bool:
    return load is not None and load.work_total is not None and load.work_total != usage.work.get(replica, 0)


def sleeps_at(usage: Usage, idle_ttl_s: int | None) -> datetime:
    """When the model goes to sleep if nobody uses it until then."""
    return usage.used_at + timedelta(seconds=DEFAULT_IDLE_S if idle_ttl_s is None else idle_ttl_s)


def recent_demands(usage: Usage | None, now: datetime) -> int:
    """How often the model was asked for while it did not run, in the last hour."""
    return 0 if usage is None else sum(now - moment < RECENT for moment in usage.demands)
