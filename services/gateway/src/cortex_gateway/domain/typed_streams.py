"""Streams whose events have names: /v1/responses of OpenAI and /v1/messages of Anthropic. See `streams.Leveller`.

A chunk of whole events of which none begins, ends or counts is passed on untouched.
"""

import msgspec

from cortex_gateway.domain import errors
from cortex_gateway.domain.dialects import anthropic_error_event, responses_error_event
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.engine_errors import map_stream_error
from cortex_gateway.domain.levelling.names import Renames, rename
from cortex_gateway.domain.levelling.responses import ResponseEvents
from cortex_gateway.domain.streams import EventSplitter, StreamGarbageError, payload_of
from cortex_gateway.domain.usage import Tokens, Usage, response_tokens_of

__all__ = ["MessagesLeveller", "ResponsesLeveller", "StreamGarbageError"]
_DONE = b"[DONE]"


class _UsageHolder(msgspec.Struct):
    usage: Usage | None = None


class _MessageEvent(msgspec.Struct):
    type: str = ""
    message: _UsageHolder | None = None
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    response: _UsageHolder | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    sequence_number: int | None = None


_decode_message = msgspec.json.Decoder(_MessageEvent).decode
_decode_response = msgspec.json.Decoder(_ResponseEvent).decode


class MessagesLeveller:
    """Anthropic's events; usage begins in `message_start` and ends in `message_delta`."""

    __slots__ = ("_renames", "_splitter", "_usage", "done", "error", "events")

    def __init__(self, renames: Renames) -> None:
        self._renames = renames
        self._splitter = EventSplitter()
        self._usage = Usage()
        self.done = False
        self.error: ApiError | None = None
        self.events = 0

    @property
    def usage(self) -> Tokens | None:
        """Final with `message_stop`; before it only the prompt is known, which is no usage of the request."""
        return response_tokens_of(self._usage) if self.done and self._usage.input_tokens is not None else None

    @property
    def sent_tokens(self) -> int:
        return self.events

    def feed(self, chunk: bytes) -> bytes:
        if not self._splitter.carry and _is_plain_messages(chunk):
            self.events += chunk.count(b"event: content_block_delta")
            return chunk
        out: list[bytes] = []
        for event in self._splitter.split(chunk):
            if event.strip() and not self._skip(event):
                out.append(rename(event, self._renames) + b"\n\n")
            if self.done:
                break
        return b"".join(out)

    def tail(self) -> bytes:
        return b"" if self.error is None else anthropic_error_event(self.error)

    def fail(self, error: ApiError) -> None:
        self.error = error
        self.done = True

    def _skip(self, event: bytes) -> bool:
        """Take note of an event; True when it is not for the client."""
        payload = payload_of(event)
        if payload is None:
            return False
        if payload == _DONE:
            return True
        try:
            seen = _decode_message(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        match seen.type:
            case "content_block_delta":
                self.events += 1
            case "message_start" if seen.message is not None and seen.message.usage is not None:
                self._usage = seen.message.usage
            case "message_delta" if seen.usage is not None:
                self._merge(seen.usage)
            case "message_stop":
                self.done = True
            case "error":
                self.fail(map_stream_error(bytes(seen.error)))
                return True
            case _:
                pass
        return False

    def _merge(self, later: Usage) -> None:
        """What the end says holds; llama-server repeats there only the answer's tokens."""
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            value: int | None = getattr(later, name)
            if value is not None:
                setattr(self._usage, name, value)


class ResponsesLeveller:
    """OpenAI's response events; usage is in the last one. There is no end marker but that event.

    Args:
        renames: see `names`.
        completing: fills in what llama-server leaves out of its events; None leaves them untouched.
    """

    __slots__ = ("_completing", "_renames", "_sequence", "_splitter", "done", "error", "events", "usage")

    def __init__(self, renames: Renames, completing: ResponseEvents | None) -> None:
        self._renames = renames
        self._completing = completing
        self._splitter = EventSplitter()
        self._sequence = 0
        self.done = False
        self.error: ApiError | None = None
        self.usage: Tokens | None = None
        self.events = 0

    @property
    def sent_tokens(self) -> int:
        return self.events

    def feed(self, chunk: bytes) -> bytes:
        if self._completing is None and not self._splitter.carry and _is_plain_responses(chunk):
            self.events += chunk.count(b".delta\n")
            self._sequence += chunk.count(b"\n\n")
            return rename(chunk, self._renames)
        out: list[bytes] = []
        for event in self._splitter.split(chunk):
            levelled = self._level(event)
            if levelled:
                out.append(rename(levelled, self._renames) + b"\n\n")
            if self.done:
                break
        return b"".join(out)

    def tail(self) -> bytes:
        return b"" if self.error is None else responses_error_event(self.error, self._sequence)

    def fail(self, error: ApiError) -> None:
        self.error = error
        self.done = True

    def _level(self, event: bytes) -> bytes | None:
        payload = payload_of(event)
        if payload is None:
            return event
        if payload == _DONE:
            return None
        try:
            seen = _decode_response(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event
        if bytes(seen.error) != b"null" and seen.type in ("", "error"):
            self.fail(map_stream_error(bytes(seen.error)))
            return None
        self._sequence += 1
        if seen.type.endswith(".delta"):
            self.events += 1
        self._note_end(seen)
        return event if self._completing is None else self._completing.complete(seen.type, payload)

    def _note_end(self, seen: _ResponseEvent) -> None:
        if seen.type not in ("response.completed", "response.incomplete", "response.failed"):
            return
        self.done = True
        if seen.response is not None and seen.response.usage is not None:
            self.usage = response_tokens_of(seen.response.usage)
        if seen.type == "response.failed":
            self.error = errors.engine_answer_unusable("the response failed")


def _is_plain_messages(chunk: bytes) -> bool:
    return (
        chunk.startswith(b"event: content_block_")
        and chunk.endswith(b"\n\n")
        and b"event: message_" not in chunk
        and b"event: error" not in chunk
        and b"\ndata: [" not in chunk
    )


def _is_plain_responses(chunk: bytes) -> bool:
    return (
        chunk.startswith(b"event: response.")
        and chunk.endswith(b"\n\n")
        and b"event: response.completed" not in chunk
        and b"event: response.incomplete" not in chunk
        and b"event: response.failed" not in chunk
        and b"event: error" not in chunk
        and b'"error":{' not in chunk
        and b"\ndata: [" not in chunk
    )
