"""What both engines say of themselves in Prometheus' text format, under one set of names. Pure.

The text is hostile input: only wanted names are looked at, everything is bounded, and what cannot be read is left out.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import EngineType

MAX_LINES = 20_000
MAX_LINE = 4_096
MAX_BUCKETS = 64
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*,?')

Points = Mapping[str, tuple[tuple[str | None, float], ...]]
"""Name -> (label `le` or None, value) of every line with that name."""


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """Cumulative buckets by upper bound, the last one infinite, and the sum of all values."""

    buckets: tuple[tuple[float, float], ...]
    total: float


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One reading of one engine. `values` and `histograms` have our names, without the prefix `cortex_engine_`."""

    load: EngineLoad
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    histograms: Mapping[str, HistogramValue] = field(default_factory=dict[str, HistogramValue])


@dataclass(frozen=True, slots=True)
class Family:
    """One exported metric."""

    name: str
    kind: str
    help: str


FAMILIES = (
    Family("healthy", "gauge", "1 while the verdict is healthy"),
    Family("up", "gauge", "1 when the engine's metrics could be read the last time"),
    Family("requests_running", "gauge", "Requests being worked on"),
    Family("requests_waiting", "gauge", "Requests that the engine has queued"),
    Family("kv_cache_usage_ratio", "gauge", "Part of the KV cache that requests hold, 0 to 1"),
    Family("slots", "gauge", "Requests that the engine works on at a time"),
    Family("context_tokens", "gauge", "Longest prompt and answer of one request"),
    Family("prompt_tokens_total", "counter", "Tokens of prompts, cached ones included"),
    Family("cached_prompt_tokens_total", "counter", "Tokens of prompts that were found in the cache"),
    Family("generated_tokens_total", "counter", "Tokens generated"),
    Family("prompt_tokens_per_second", "gauge", "Tokens of prompts since the reading before"),
    Family("generated_tokens_per_second", "gauge", "Tokens generated since the reading before"),
    Family("prefix_cache_hit_ratio", "gauge", "Cached part of all prompt tokens since the engine started"),
    Family("requests_total", "counter", "Requests finished"),
    Family("preemptions_total", "counter", "Requests pushed out of the KV cache"),
    Family("draft_tokens_total", "counter", "Speculative decoding: tokens proposed"),
    Family("accepted_tokens_total", "counter", "Speculative decoding: proposed tokens that were right"),
    Family("draft_acceptance_ratio", "gauge", "Speculative decoding: right part of the proposed tokens"),
    Family("time_to_first_token_seconds", "histogram", "From the request to its first token"),
    Family("inter_token_latency_seconds", "histogram", "Between two tokens of one answer"),
    Family("request_seconds", "histogram", "From the request to the end of its answer"),
    Family("queue_seconds", "histogram", "In the engine's own queue"),
)


def parse_exposition(body: bytes, wanted: Callable[[str], bool]) -> Points:
    """The lines whose names are wanted. Never raises; reads at most MAX_LINES lines of at most MAX_LINE bytes."""
    points: dict[str, list[tuple[str | None, float]]] = {}
    for line in body.split(b"\n", MAX_LINES)[:MAX_LINES]:
        if len(line) > MAX_LINE or line.startswith(b"#"):
            continue
        parsed = _parse_line(line.decode(errors="replace"), wanted)
        if parsed is not None:
            points.setdefault(parsed[0], []).append(parsed[1])
    return MappingProxyType({name: tuple(items) for name, items in points.items()})


def _parse_line(line: str, wanted: Callable[[str], bool]) -> tuple[str, tuple[str | None, float]] | None:
    brace = line.find("{")
    name = line[:brace] if brace >= 0 else line.partition(" ")[0]
    if not wanted(name):
        return None
    bound, rest = (None, line[len(name) :]) if brace < 0 else _labels(line, brace + 1)
    words = rest.split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return (name, (bound, value)) if math.isfinite(value) and value >= 0 else None


def _labels(line: str, start: int) -> tuple[str | None, str]:
    """The label `le`, and what follows the closing brace; nothing when the labels are not well formed."""
    bound: str | None = None
    while match := _LABEL.match(line, start):
        if match[1] == "le":
            bound = match[2]
        start = match.end()
    closed = line[start : start + 1] == "}"
    return bound, line[start + 1 :] if closed else ""


@dataclass(frozen=True, slots=True)
class _Dialect:
    running: str
    waiting: str
    work: tuple[str, ...]
    sums: Mapping[str, tuple[str, ...]]
    """Our name -> theirs, added up; missing ones leave it out."""
    kv_usage: str | None = None
    histograms: Mapping[str, str] = field(default_factory=dict[str, str])

    def wants(self, name: str) -> bool:
        return name in self.names

    @property
    def names(self) -> frozenset[str]:
        plain = {self.running, self.waiting, *self.work, *(name for names in self.sums.values() for name in names)}
        parts = {f"{name}{suffix}" for name in self.histograms.values() for suffix in ("_bucket", "_sum", "_count")}
        return frozenset(plain | parts | ({self.kv_usage} if self.kv_usage else set()))


_LLAMACPP = _Dialect(
    running="llamacpp:requests_processing",
    waiting="llamacpp:requests_deferred",
    work=("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", "llamacpp:n_decode_total"),
    sums={
        # llama-server counts what it processed, vLLM whole prompts: ours are whole prompts.
        "prompt_tokens_total": ("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
        "cached_prompt_tokens_total": ("llamacpp:prompt_tokens_cached_total",),
        "generated_tokens_total": ("llamacpp:tokens_predicted_total",),
        "draft_tokens_total": ("llamacpp:spec_decode_num_draft_tokens_total",),
        "accepted_tokens_total": ("llamacpp:spec_decode_num_accepted_tokens_total",),
    },
)
_VLLM = _Dialect(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    work=("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total"),
    sums={
        "prompt_tokens_total": ("vllm:prompt_tokens_total",),
        "cached_prompt_tokens_total": ("vllm:prefix_cache_hits_total",),
        "generated_tokens_total": ("vllm:generation_tokens_total",),
        "requests_total": ("vllm:request_success_total",),
        "preemptions_total": ("vllm:num_preemptions_total",),
        "draft_tokens_total": ("vllm:spec_decode_num_draft_tokens_total",),
        "accepted_tokens_total": ("vllm:spec_decode_num_accepted_tokens_total",),
    },
    kv_usage="vllm:kv_cache_usage_perc",
    histograms={
        "time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
        "inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
        "request_seconds": "vllm:e2e_request_latency_seconds",
        "queue_seconds": "vllm:request_queue_time_seconds",
    },
)
_DIALECTS = MappingProxyType({EngineType.LLAMACPP: _LLAMACPP, EngineType.VLLM: _VLLM})
_NAMES = MappingProxyType({engine: dialect.names for engine, dialect in _DIALECTS.items()})


def read_metrics(engine_type: EngineType, body: bytes) -> EngineSample | None:
    """One reading; None when this is not what such an engine says."""
    dialect = _DIALECTS[engine_type]
    points = parse_exposition(body, _NAMES[engine_type].__contains__)
    if dialect.running not in points:
        return None
    sums = {name: sum(value for _, value in items) for name, items in points.items()}
    work = [sums[name] for name in dialect.work if name in sums]
    values = {
        ours: sum(sums.get(name, 0.0) for name in theirs) for ours, theirs in dialect.sums.items() if theirs[0] in sums
    }
    values |= dict(_ratios(values))
    usage = points.get(dialect.kv_usage, ()) if dialect.kv_usage else ()
    load = EngineLoad(
        running=_count(sums[dialect.running]),
        waiting=_count(sums.get(dialect.waiting, 0.0)),
        work_total=_count(sum(work)) if work else None,
        kv_usage=round(min(1.0, max(value for _, value in usage)), 2) if usage else None,
    )
    histograms = {
        ours: histogram
        for ours, theirs in dialect.histograms.items()
        if (histogram := _histogram(points.get(f"{theirs}_bucket", ()), sums.get(f"{theirs}_sum", 0.0))) is not None
    }
    return EngineSample(load, values, histograms)


def _count(value: float) -> int:
    return int(min(value, 2.0**53))


def _ratios(values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, part, whole in (
        ("prefix_cache_hit_ratio", "cached_prompt_tokens_total", "prompt_tokens_total"),
        ("draft_acceptance_ratio", "accepted_tokens_total", "draft_tokens_total"),
    ):
        if values.get(whole):
            yield name, min(1.0, values.get(part, 0.0) / values[whole])


def _histogram(points: tuple[tuple[str | None, float], ...], total: float) -> HistogramValue | None:
    """Buckets added up over the engines of one server; None unless they are those of a histogram."""
    buckets: dict[float, float] = {}
    for bound, count in points:
        try:
            upper = float(bound or "")
        except ValueError:
            return None
        buckets[upper] = buckets.get(upper, 0.0) + count
    ordered = sorted(buckets.items())
    if not ordered or len(ordered) > MAX_BUCKETS or ordered[-1][0] != math.inf:
        return None
    if any(left[1] > right[1] for left, right in itertools.pairwise(ordered)):
        return None
    return HistogramValue(tuple(ordered), total)


def with_rates(sample: EngineSample, before: EngineSample | None, seconds: float) -> EngineSample:
    """Add tokens per second since the reading before; nothing after a restart of the engine or for the first one."""
    if before is None or seconds <= 0:
        return sample
    rates: dict[str, float] = {}
    for name in ("prompt_tokens", "generated_tokens"):
        new, old = sample.values.get(f"{name}_total"), before.values.get(f"{name}_total")
        if new is not None and old is not None and new >= old:
            rates[f"{name}_per_second"] = (new - old) / seconds
    return EngineSample(sample.load, {**sample.values, **rates}, sample.histograms)


def worked_between(before: EngineLoad, after: EngineLoad) -> bool:
    """Whether the engine did real work between two readings."""
    return before.work_total is not None and after.work_total is not None and after.work_total != before.work_total
