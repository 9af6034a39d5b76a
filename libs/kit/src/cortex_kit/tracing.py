"""Traces: W3C trace context, the decision to sample, and an OpenTelemetry exporter when there is somewhere to send to.

Without an endpoint nothing of OpenTelemetry is imported. The decision is taken before anything else is known of a span, so
that one that is not recorded costs as little as none.
"""

import asyncio
import contextlib
import random
import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from cortex_kit.logging import get_logger

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Span

log = get_logger()

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})((?:-.*)?)")
_SAMPLED = 1
CLOSE_TIMEOUT_S = 3.0


class Sampler(StrEnum):
    """The values of OTEL_TRACES_SAMPLER."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    RATIO = "traceidratio"
    PARENT_ALWAYS_ON = "parentbased_always_on"
    PARENT_ALWAYS_OFF = "parentbased_always_off"
    PARENT_RATIO = "parentbased_traceidratio"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a span belongs."""

    trace_id: int
    span_id: int
    sampled: bool

    def header(self) -> bytes:
        """The value of `traceparent`."""
        return b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, _SAMPLED if self.sampled else 0)


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """`endpoint` is the whole address that traces are posted to; empty: off."""

    service: str
    instance: str
    endpoint: str = ""
    sampler: Sampler = Sampler.PARENT_ALWAYS_ON
    ratio: float = 1.0


def parse_traceparent(value: bytes | None) -> TraceContext | None:
    """W3C Trace Context, level 1; None for anything that does not follow it to the letter."""
    match = _TRACEPARENT.fullmatch(value) if value is not None else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))


def decide(sampler: Sampler, ratio: float, parent: TraceContext | None, trace_id: int) -> bool:
    """Whether a span is recorded. Pure; the ratio is that of OpenTelemetry: by the lower 64 bits of the trace id."""
    if parent is not None and sampler.value.startswith("parentbased_"):
        return parent.sampled
    match sampler:
        case Sampler.ALWAYS_ON | Sampler.PARENT_ALWAYS_ON:
            return True
        case Sampler.ALWAYS_OFF | Sampler.PARENT_ALWAYS_OFF:
            return False
        case Sampler.RATIO | Sampler.PARENT_RATIO:
            return (trace_id & (2**64 - 1)) < round(ratio * 2**64)


class _Ids:
    """Random ids (`IdGenerator`), but for a trace id that was needed before its span: the decision depends on it."""

    def __init__(self) -> None:
        self._random = random.Random()
        self.trace_id = 0

    def new_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        return False  # the flag of level 2, which is not what we send on


class Tracing:
    """Starts spans that are worth recording, and sends them off in a thread of its own."""

    def __init__(self, config: TracingConfig) -> None:
        # Not at the top: whoever does not trace does not pay for the imports.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        self._config = config
        self._kind = SpanKind.CLIENT
        self._ids = _Ids()
        resource = Resource.create({"service.name": config.service, "service.instance.id": config.instance})
        ids = cast("IdGenerator", self._ids)
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=config.endpoint)))
        self._tracer = self._provider.get_tracer("cortex")
        log.info("tracing_on", sampler=config.sampler, ratio=config.ratio)

    def start(self, name: str, parent: TraceContext | None) -> "Span | None":
        """A span of a call to another server, begun; None when this one is not sampled. `end` it."""
        trace_id = parent.trace_id if parent is not None else self._ids.new_trace_id()
        if not decide(self._config.sampler, self._config.ratio, parent, trace_id):
            return None
        self._ids.trace_id = trace_id
        return self._tracer.start_span(name, context=_context_of(parent), kind=self._kind)

    async def close(self) -> None:
        """Send what is left, for a few seconds at most; a collector that does not answer delays no exit."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait any longer
                loop.call_soon_threadsafe(done.set)

        # A daemon, unlike the threads of the loop's executor, which are waited for at the exit.
        threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await done.wait()
        except TimeoutError:
            log.warning("spans_lost_at_shutdown")


def _context_of(parent: TraceContext | None) -> "Context":
    from opentelemetry import trace  # noqa: PLC0415 - as above
    from opentelemetry.context import Context  # noqa: PLC0415

    if parent is None:
        return Context()
    flags = trace.TraceFlags(_SAMPLED if parent.sampled else 0)
    remote = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
