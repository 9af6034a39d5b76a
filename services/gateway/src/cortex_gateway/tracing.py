"""One span per request in the words of OpenTelemetry's GenAI conventions; never a word of a prompt or an answer.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_contracts.enums import EngineType, UsageOutcome
from cortex_gateway.domain.usage import UsageData
from cortex_gateway.ports import Request
from cortex_gateway.settlement import Exchange
from cortex_kit.tracing import TraceContext, Tracing, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span

HEADER = b"traceparent"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
}
_PROVIDERS = {EngineType.VLLM: "vllm", EngineType.LLAMACPP: "llama.cpp"}
OTHER_OPERATION = "tokenize"
_COMPLETED = UsageOutcome.COMPLETED.value
_DISCONNECTED = UsageOutcome.CLIENT_DISCONNECTED.value


@dataclass(frozen=True, slots=True)
class Trace:
    """What a request carries of its trace. `traceparent` goes to the engine and onto the usage event."""

    traceparent: bytes
    span: "Span | None" = None

    @property
    def head(self) -> bytes:
        """A header line for the engine."""
        return b"%s: %s\r\n" % (HEADER, self.traceparent)


class RequestTracer:
    """Begins traces, and ends them when their requests are settled (`settlement.Observer`).

    Without `Tracing` a valid `traceparent` is passed on as it came, and a request without one costs one look.
    """

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing

    def begin(self, request: Request, path: str) -> Trace | None:
        """None: there is nothing to pass on and nothing to record."""
        given = request.header(HEADER)
        if self._tracing is None:
            return Trace(parent.header()) if given is not None and (parent := parse_traceparent(given)) else None
        return self._begin(self._tracing, parse_traceparent(given), path)

    @staticmethod
    def _begin(tracing: Tracing, parent: TraceContext | None, path: str) -> Trace | None:
        span = tracing.start(_OPERATIONS.get(path, OTHER_OPERATION), parent)
        if span is None:
            return Trace(parent.header()) if parent is not None else None
        own = span.get_span_context()
        return Trace(TraceContext(own.trace_id, own.span_id, sampled=True).header(), span)

    def settled(self, exchange: Exchange, data: UsageData) -> None:
        """End the span of a request, if it has one."""
        trace = exchange.trace
        if isinstance(trace, Trace) and trace.span is not None:
            _finish(trace.span, exchange, data)


def _finish(span: "Span", exchange: Exchange, data: UsageData) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - imported already where there is a span

    operation = _OPERATIONS.get(data.route, OTHER_OPERATION)
    attributes: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": data.model,
        "gen_ai.usage.input_tokens": data.prompt_tokens,
        "gen_ai.usage.output_tokens": data.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": data.cached_tokens,
        "http.response.status_code": data.status,
        "cortex.request.id": data.request_id,
        "cortex.stream": data.stream,
        "cortex.outcome": data.outcome,
    }
    route, target = exchange.route, exchange.target
    if route is not None:
        # The name of a span is of few kinds: never what a client made up.
        span.update_name(f"{operation} {route.model.served_model_name}")
        attributes["gen_ai.provider.name"] = _PROVIDERS[route.engine_type]
        attributes["gen_ai.response.model"] = route.model.served_model_name
    if target is not None:
        attributes["server.address"] = target.endpoint.host
        attributes["server.port"] = target.endpoint.port
        attributes["cortex.replica.id"] = target.replica_id
    if data.ttft_ms is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = data.ttft_ms / 1000
    if data.outcome != _COMPLETED:
        attributes["error.type"] = (
            data.outcome if data.outcome == _DISCONNECTED or data.status < 400 else str(data.status)
        )
        span.set_status(Status(StatusCode.ERROR))
    span.set_attributes(attributes)
    span.end()
