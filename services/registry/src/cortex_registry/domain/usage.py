"""Usage as an administrator asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cortex_contracts.events import UsageRecordedV1


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records; None means all. `model` is the name that clients asked for, or a model's id."""

    model: str | None = None
    key_id: str | None = None
    since: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """Sums over every record that matches, however few are listed."""

    requests: int
    completed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The newest records first, and the sums."""

    records: Sequence[UsageRecordedV1]
    totals: UsageTotals
