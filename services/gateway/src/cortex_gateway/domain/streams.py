"""Levelling of a server-sent event stream: whole events in, whole events out.

The common case, a chunk of whole events with nothing to change, is passed on untouched after four substring searches.
"""

from collections.abc import Sequence

import msgspec

from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling import map_stream_error
from cortex_gateway.domain.usage import Tokens, Usage, tokens_of

DONE_EVENT = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 16 * 1024 * 1024


class _ChoiceHead(msgspec.Struct):
    index: int | None = 0


class _EventHead(msgspec.Struct):
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    choices: list[_ChoiceHead] | None = None


_decode_head = msgspec.json.Decoder(_EventHead).decode
_Object = dict[str, msgspec.Raw]


class StreamGarbageError(Exception):
    """The engine sent something that is no event stream."""


def error_event(error: ApiError) -> bytes:
    """An error as an event; OpenAI clients raise when they meet it."""
    return b"data: " + error.body() + b"\n\n"


class StreamLeveller:
    """Follows one stream of either engine.

    Args:
        wants_usage: the client asked for a usage chunk.
        collect: gather usage over all choices and report it once at the end, as llama-server needs for
            /v1/completions (usage inside the finish chunk) and for several choices (one usage chunk each).
        choices_per_prompt: `n` of the request.
        per_prompt: choices are numbered prompt by prompt; otherwise all choices share one prompt.

    After each `feed`, `done` says that the end marker or an error was seen: send `tail()` last and stop reading.
    """

    __slots__ = (
        "_carry",
        "_choices_per_prompt",
        "_collect",
        "_completions",
        "_per_prompt",
        "_prompts",
        "_template",
        "_wants_usage",
        "done",
        "error",
        "events",
        "usage",
    )

    def __init__(
        self, *, wants_usage: bool, collect: bool = False, choices_per_prompt: int = 1, per_prompt: bool = False
    ) -> None:
        self._wants_usage = wants_usage
        self._collect = collect
        self._choices_per_prompt = max(1, choices_per_prompt)
        self._per_prompt = per_prompt
        self._carry = b""
        self._template: _Object | None = None
        self._prompts: dict[int, Tokens] = {}
        self._completions = 0
        self.done = False
        self.error: ApiError | None = None
        self.usage: Tokens | None = None
        self.events = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they came; return the whole events to pass on, perhaps none.

        Raises:
            StreamGarbageError: an event without end.
        """
        if not self._carry and _is_plain(chunk):
            self.events += chunk.count(b"\ndata:") + 1
            return chunk
        data = self._carry + chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *whole, self._carry = data.split(b"\n\n")
        if len(self._carry) > MAX_EVENT_BYTES:
            raise StreamGarbageError("an event is too long")
        return self._level(whole)

    def tail(self) -> bytes:
        """What ends the stream: the error if there was one, and the marker that clients wait for."""
        return DONE_EVENT if self.error is None else error_event(self.error) + DONE_EVENT

    def fail(self, error: ApiError) -> None:
        """End the stream with an error of the gateway."""
        self.error = error
        self.done = True

    def _level(self, events: Sequence[bytes]) -> bytes:
        out: list[bytes] = []
        for event in events:
            levelled = self._level_event(event)
            if levelled is not None:
                out.append(levelled + b"\n\n")
            if self.done:
                break
        return b"".join(out)

    def _level_event(self, event: bytes) -> bytes | None:
        """The event to pass on, or None when it is not for the client."""
        payload = _payload(event)
        if payload is None:
            return event or None
        if payload == b"[DONE]":
            self.done = True
            return self._summary()
        if payload == b"null":
            return None
        try:
            head = _decode_head(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event
        error = bytes(head.error)
        if error != b"null":
            self.fail(map_stream_error(error))
            return None
        if head.choices:
            self.events += 1
        return event if head.usage is None else self._on_usage(event, payload, head.usage, head.choices or [])

    def _on_usage(self, event: bytes, payload: bytes, usage: Usage, choices: list[_ChoiceHead]) -> bytes | None:
        tokens = tokens_of(usage)
        if not self._collect:
            self.usage = tokens
            if self._wants_usage:
                return event
        else:
            self._add(tokens, choices[0].index or 0 if choices else 0)
        members = msgspec.json.decode(payload, type=_Object)
        members.pop("usage", None)
        self._template = members
        return b"data: " + msgspec.json.encode(members) if choices else None

    def _add(self, tokens: Tokens, choice: int) -> None:
        """Sum over choices; a prompt that several choices share counts once."""
        prompt = choice // self._choices_per_prompt if self._per_prompt else 0
        self._prompts.setdefault(prompt, tokens)
        self._completions += tokens.completion
        self.usage = Tokens(
            prompt=sum(counted.prompt for counted in self._prompts.values()),
            cached=sum(counted.cached for counted in self._prompts.values()),
            completion=self._completions,
        )

    def _summary(self) -> bytes | None:
        """The single usage chunk that OpenAI sends before the end."""
        if not (self._collect and self._wants_usage and self._template is not None and self.usage is not None):
            return None
        usage = {
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "total_tokens": self.usage.prompt + self.usage.completion,
            "prompt_tokens_details": {"cached_tokens": self.usage.cached},
        }
        members = self._template | {
            "choices": msgspec.Raw(b"[]"),
            "usage": msgspec.Raw(msgspec.json.encode(usage)),
        }
        members.pop("timings", None)
        return b"data: " + msgspec.json.encode(members)


def _is_plain(chunk: bytes) -> bool:
    """Whole `data:` events that cannot need a change. A raw newline or quote never occurs inside a JSON string."""
    return (
        chunk.startswith(b"data: {")
        and chunk.endswith(b"\n\n")
        and b'"usage"' not in chunk
        and b'"error"' not in chunk
        and b"\ndata: [" not in chunk
        and b"\n:" not in chunk
        and b"\ndata: n" not in chunk
    )


def _payload(event: bytes) -> bytes | None:
    """The data of an event; None for comments and other fields."""
    if event.startswith(b"data:"):
        return event[5:].strip()
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            return line[5:].strip()
    return None
