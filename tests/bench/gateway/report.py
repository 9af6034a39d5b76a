"""Tables out of what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from .measure import best_of, median_of

Outcomes = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Proxy -> measurement -> outcomes, one per round."""

_COLUMNS = ("req/s best", "req/s median", "CPU µs/request", "c=1 p50 µs", "TTFT p50 µs", "CPU µs/event")


def table(outcomes: Outcomes) -> str:
    """One row per proxy, in Markdown; the first row is the engine without a proxy."""
    lines = [f"| | {' | '.join(_COLUMNS)} |", "|---|" + "--:|" * len(_COLUMNS)]
    for name, runs in outcomes.items():
        lines.append(f"| {name} | {' | '.join(_row(name, runs))} |")
    return "\n".join(lines)


def _whole(outcomes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without rounds in which the machine gave the proxy no time at all."""
    return [outcome for outcome in outcomes if outcome["complete"]]


def _row(name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    runs = {run: _whole(rounds) for run, rounds in runs.items()}
    busy = [*runs.get("busy", ()), *runs.get("busy16", ())]
    cells = ["-"] * len(_COLUMNS)
    if busy:
        cells[0] = f"{best_of(busy, 'requests_per_s', most=True):,.0f}"
        cells[1] = f"{median_of(busy, 'requests_per_s'):,.0f}"
        cells[2] = "-" if name == "direct" else f"{best_of(busy, 'cpu_us_per_request', most=False):.1f}"
    if alone := runs.get("alone"):
        cells[3] = f"{median_of(alone, 'p50_us'):,.0f}"
    if stream := runs.get("stream"):
        cells[4] = f"{median_of(stream, 'first_byte_p50_us'):,.0f}"
        cells[5] = "-" if name == "direct" else f"{best_of(stream, 'cpu_us_per_event', most=False):.1f}"
    return cells


def ratios(outcomes: Outcomes) -> str:
    """The gateway against each rival, from the same rounds."""
    lines: list[str] = []
    own = outcomes.get("gateway")
    direct = outcomes.get("direct")
    if own is None:
        return ""
    for name, runs in outcomes.items():
        if name in ("direct", "gateway"):
            continue
        parts: list[str] = []
        if any(run in runs and run in own for run in ("busy", "busy16")):
            ours, theirs = _pairs(own, runs)
            parts.append(f"{median_of(ours, 'requests_per_s') / median_of(theirs, 'requests_per_s'):.2f} x its req/s")
            cpu = best_of(ours, "cpu_us_per_request", most=False) / best_of(theirs, "cpu_us_per_request", most=False)
            parts.append(f"{cpu:.2f} x its CPU per request")
        for run, field, label in (
            ("alone", "p50_us", "added p50 at c=1"),
            ("stream", "first_byte_p50_us", "added TTFT"),
        ):
            if direct is not None and run in runs and run in own:
                base = median_of(_whole(direct[run]), field)
                ours_added = median_of(_whole(own[run]), field) - base
                theirs_added = median_of(_whole(runs[run]), field) - base
                parts.append(f"{label} {ours_added:,.0f} µs against {theirs_added:,.0f} µs")
        lines.append(f"- against {name}: " + "; ".join(parts))
    return "\n".join(lines)


def _pairs(
    own: Mapping[str, Sequence[Mapping[str, Any]]], rival: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    runs = [run for run in ("busy", "busy16") if run in own and run in rival]
    return _whole([o for run in runs for o in own[run]]), _whole([o for run in runs for o in rival[run]])


def faults(outcomes: Outcomes) -> list[str]:
    """Whatever was not an answer: a benchmark of errors is none."""
    return [
        f"{name}, {run}: {outcome['not_200']} not 200, {outcome['broken']} broken, {outcome.get('streams_cut', 0)} cut"
        for name, runs in outcomes.items()
        for run, rounds in runs.items()
        for outcome in rounds
        if outcome["not_200"] or outcome["broken"] or outcome.get("streams_cut", 0)
    ]
