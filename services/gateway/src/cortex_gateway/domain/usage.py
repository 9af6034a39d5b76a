"""Reading token counts from answers, and the usage record in the form that is written to disk."""

from datetime import datetime

import msgspec

from cortex_contracts.events import UsageRecordedV1
from cortex_gateway.domain.usage_shapes import (
    CompletionUsage,
    PromptDetails,
    Tokens,
    Usage,
    UsageData,
    decode_completion,
    decode_id,
    decode_response,
)

__all__ = ["CompletionUsage", "Tokens", "Usage", "UsageData"]

_TYPE = UsageRecordedV1.type_name()
_TEXT_FIELDS = ("messages", "prompt", "input", "system", "instructions", "query", "documents", "content")


def tokens_of(usage: CompletionUsage) -> Tokens:
    """Counts in the gateway's words."""
    details = usage.prompt_tokens_details
    return Tokens(
        prompt=max(0, usage.prompt_tokens or 0),
        cached=0 if details is None else max(0, details.cached_tokens or 0),
        completion=max(0, usage.completion_tokens or 0),
    )


def response_tokens_of(usage: Usage) -> Tokens:
    """The same of responses and messages. In messages `input_tokens` leaves out what came from the cache."""
    read = max(0, usage.cache_read_input_tokens or 0)
    created = max(0, usage.cache_creation_input_tokens or 0)
    return Tokens(
        prompt=max(0, usage.input_tokens or 0) + read + created,
        cached=read or _cached(usage.input_tokens_details),
        completion=max(0, usage.output_tokens or 0),
    )


def _cached(details: PromptDetails | None) -> int:
    return max(0, details.cached_tokens or 0) if details is not None else 0


def read_usage(body: bytes) -> Tokens | None:
    """Token counts of a whole JSON answer; None when it reports none."""
    try:
        usage = decode_completion(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if usage is None else tokens_of(usage)


def read_response_usage(body: bytes) -> Tokens | None:
    """Token counts of a whole answer of responses or messages; None when it reports none."""
    try:
        usage = decode_response(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if usage is None else response_tokens_of(usage)


def estimate_tokens(body: bytes) -> int:
    """Four characters a token, over the text that the model sees; the last resort when the engine cannot count."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return max(1, len(body) // 4)
    size = sum(len(bytes(members[name])) for name in _TEXT_FIELDS if name in members)
    return max(1, size // 4)


_encode = msgspec.json.Encoder().encode


class UsageEnvelope:
    """Writes usage records of one source as CloudEvents, each as one line of JSON: what never changes is written once."""

    __slots__ = ("_origin",)

    def __init__(self, source: str) -> None:
        self._origin = b'"source":%b,"type":%b' % (_encode(source), _encode(_TYPE))

    def encode(self, data: UsageData, now: datetime, correlation_id: str | None, traceparent: bytes | None) -> bytes:
        """The record's id is the request's id, a UUID: one record each. `traceparent` is a valid one."""
        record_id = data.request_id.encode()
        parent = b"null" if traceparent is None else b'"%b"' % traceparent
        return (
            b'{"specversion":"1.0","id":"%b",%b,"subject":"%b","time":%b,"datacontenttype":"application/json",'
            b'"data":%b,"aggregateversion":0,"correlationid":%b,"traceparent":%b}'
            % (record_id, self._origin, record_id, _encode(now), _encode(data), _encode(correlation_id), parent)
        )


def envelope_id(line: bytes) -> str | None:
    """Id of a stored record; None when the line is torn or foreign."""
    try:
        return decode_id(line).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
