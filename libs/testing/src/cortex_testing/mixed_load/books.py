"""Whether the usage records are what clients counted."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cortex_testing.mixed_load.kinds import KINDS, MOST_LEFT_TOKENS
from cortex_testing.mixed_load.ledger import End, Ledger, Seen, percentile

Rows = Callable[[str], list[dict[str, Any]]]
"""Every usage record of a key."""
UNRECORDED = frozenset({"gateway_draining", "gateway_starting", "keys_outdated"})
"""Refusals that come before a request is looked at: there is no record of them."""
Line = tuple[int, str, int, int]
"""Status, outcome, prompt and completion tokens."""


@dataclass
class Sums:
    """Of one kind of request, or of all."""

    requests: int = 0
    records: int = 0
    told: Counter[str] = field(default_factory=Counter[str])
    recorded: Counter[str] = field(default_factory=Counter[str])

    def add(self, seen: list[Seen], rows: list[dict[str, Any]]) -> None:
        self.requests += len(seen)
        self.records += len(rows)
        for one in seen:
            self.told.update(prompt=one.prompt, completion=one.completion)
        for row in rows:
            self.recorded.update(prompt=row["prompt_tokens"], completion=row["completion_tokens"])


@dataclass
class Comparison:
    """Sums by kind, and every difference in words."""

    sums: dict[str, Sums] = field(default_factory=dict[str, Sums])
    differences: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def expected_rows(ledger: Ledger, kind: str) -> int:
    """How many records there must be; -1 where that cannot be known from outside."""
    if kind in ("malformed", "wrong key"):
        return -1
    return sum(one.code not in UNRECORDED for one in ledger.of(kind))


def compare(ledger: Ledger, rows_of: Rows) -> Comparison:
    """Every kind's records with what its clients saw.

    - Answered and refused: status, outcome and both counts of tokens are the same, one by one (as multisets).
    - Ended by an error event: as many completion tokens as events with choices arrived, less one that only names the role.
    - Hung up: one record each; between what the client read and what it asked for.
    - Prompts of the last two are counted by an engine afterwards, or estimated when there is none: how many are exact is noted.
    - Refused before they are looked at, or with a key that nobody has: no tokens.
    """
    comparison = Comparison()
    for kind, described in KINDS.items():
        seen, rows = ledger.of(kind), rows_of(kind)
        sums = comparison.sums.setdefault(kind, Sums())
        sums.add(seen, rows)
        _note_prompts(kind, seen, rows, comparison)
        if described.exact:
            comparison.differences += _one_by_one(kind, seen, rows)
        elif kind.startswith("hang-up"):
            _hang_ups(kind, seen, rows, comparison)
        elif any(row["completion_tokens"] for row in rows):
            comparison.differences.append(f"{kind}: completion tokens without an answer")
        if (expected := expected_rows(ledger, kind)) >= 0 and expected != len(rows):
            comparison.differences.append(f"{kind}: {len(rows)} records of {expected} requests")
    return comparison


def _one_by_one(kind: str, seen: list[Seen], rows: list[dict[str, Any]]) -> list[str]:
    told = Counter(_line(one) for one in seen if one.end is not End.BROKEN and one.code not in UNRECORDED)
    cut = Counter(one.completion for one in seen if one.end is End.BROKEN)
    broken = [row for row in rows if (row["status"], row["outcome"]) == (200, "upstream_error")]
    recorded = Counter(
        (row["status"], row["outcome"], row["prompt_tokens"], row["completion_tokens"])
        for row in rows
        if row not in broken
    )
    recorded_cut = Counter(row["completion_tokens"] for row in broken)
    found = [f"{kind}: told {line} and not recorded" for line in (told - recorded).elements()]
    found += [f"{kind}: recorded {line} and not told" for line in (recorded - told).elements()]
    found += [f"{kind}: broken after {count} tokens and not recorded" for count in (cut - recorded_cut).elements()]
    found += [f"{kind}: recorded as broken after {count}" for count in (recorded_cut - cut).elements()]
    return found


def _line(one: Seen) -> Line:
    outcome = "completed" if one.end is End.ANSWERED else "upstream_error" if one.status >= 500 else "rejected"
    return one.status, outcome, one.prompt, one.completion


def _note_prompts(kind: str, seen: list[Seen], rows: list[dict[str, Any]], comparison: Comparison) -> None:
    known = Counter(one.prompt for one in seen if one.end in (End.BROKEN, End.HUNG_UP))
    recorded = Counter(row["prompt_tokens"] for row in rows if row["estimated"])
    if recorded:
        exact = (known & recorded).total()
        comparison.notes.append(f"{kind}: {exact} of {recorded.total()} prompts of answers that broke off are exact")


def _hang_ups(kind: str, seen: list[Seen], rows: list[dict[str, Any]], comparison: Comparison) -> None:
    """Neither side knows which record is whose: sorted by what was read, each must be at least that."""
    read = sorted(one.completion for one in seen if one.code not in UNRECORDED)
    counted = sorted(row["completion_tokens"] for row in rows)
    if len(read) == len(counted):
        over = [recorded - told for told, recorded in zip(read, counted, strict=True)]
        if over and min(over) < 0:
            comparison.differences.append(f"{kind}: {-min(over)} tokens were read and not recorded")
        comparison.notes.append(
            f"{kind}: recorded beyond what the client had read when it left, tokens: median "
            f"{percentile(over, 0.5):.0f}, p99 {percentile(over, 0.99):.0f}, most {max(over, default=0)}"
        )
    if any(count > MOST_LEFT_TOKENS for count in counted):
        comparison.differences.append(f"{kind}: more tokens than were asked for")
    ends = Counter(row["outcome"] for row in rows)
    estimated = sum(row["estimated"] for row in rows)
    comparison.notes.append(f"{kind}: recorded as {dict(ends)}, {estimated} of {len(rows)} counted by events")


def table(comparison: Comparison) -> str:
    """Markdown."""
    lines = [
        "| requests | sent | recorded | prompt tokens told | recorded | completion tokens told | recorded |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, sums in comparison.sums.items():
        told, recorded = sums.told, sums.recorded
        lines.append(
            f"| {kind} | {sums.requests} | {sums.records} | {told['prompt']} | {recorded['prompt']} "
            f"| {told['completion']} | {recorded['completion']} |"
        )
    return "\n".join(lines)
