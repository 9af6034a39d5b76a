"""Percentiles from counts in buckets, each 5.1 % wider than the one before: at most 2.5 % off, above 1 ms.

The database puts durations into buckets (`usage_bucket` in migration 0005); adding two distributions adds their counts,
so a percentile over any window and any group has the same error.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RELATIVE_ERROR = 0.025
GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
QUANTILES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Counts = Mapping[int, int]
"""Bucket -> how many lie in it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution in milliseconds; None where nothing was measured."""

    count: int
    avg: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


def middle(bucket: int) -> float:
    """The value that stands for a bucket: as far, in relation, from its lower as from its upper end."""
    return 0.5 if bucket <= 0 else 2 * GROWTH**bucket / (GROWTH + 1)


def quantile(counts: Counts, q: float) -> float | None:
    """The value at rank ceil(q * n), at most 2.5 % off; None for an empty distribution."""
    total = sum(counts.values())
    if total == 0:
        return None
    wanted = max(1, -(-round(q * total * 1_000_000) // 1_000_000))
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return round(middle(bucket), 3)
    raise AssertionError("the last bucket holds the highest rank")


def describe(counts: Counts) -> Latency:
    """Percentiles and mean of a distribution."""
    total = sum(counts.values())
    mean = sum(middle(bucket) * count for bucket, count in counts.items()) / total if total else None
    values = {name: quantile(counts, q) for name, q in QUANTILES.items()}
    return Latency(total, None if mean is None else round(mean, 3), **values)
