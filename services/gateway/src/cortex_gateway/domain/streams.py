"""Levelling of a server-sent event stream: whole events in, whole events out.

The common case, a chunk of whole events with nothing to change, is passed on untouched after a few substring searches.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from cortex_gateway.domain.dialects import openai_error_event
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.event_heads import ChoiceHead, decode_head
from cortex_gateway.domain.event_repeats import EventRepeats
from cortex_gateway.domain.levelling.choices import Gathering, usage_object
from cortex_gateway.domain.levelling.engine_errors import map_stream_error
from cortex_gateway.domain.levelling.names import Renames, both_reasonings, rename
from cortex_gateway.domain.usage import CompletionUsage, Tokens, tokens_of

DONE_EVENT = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 16 * 1024 * 1024
_Object = dict[str, msgspec.Raw]


class Leveller(Protocol):
    """Follows one stream. After each `feed`, `done` says that the end marker or an error was seen: send `tail()` last
    and stop reading."""

    done: bool
    error: ApiError | None

    @property
    def usage(self) -> Tokens | None:
        """What the engine counted; None as long as it has not said so."""
        ...

    @property
    def sent_tokens(self) -> int:
        """Tokens passed on so far, as far as events tell."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they came; return the whole events to pass on, perhaps none.

        Raises:
            StreamGarbageError: an event without end.
        """
        ...

    def tail(self) -> bytes:
        """What ends the stream: the error if there was one, and the marker that clients wait for."""
        ...

    def fail(self, error: ApiError) -> None:
        """End the stream with an error of the gateway."""
        ...


class StreamGarbageError(Exception):
    """The engine sent something that is no event stream."""


class EventSplitter:
    """Cuts bytes into whole events; what is not whole yet waits. Line ends become single newlines."""

    __slots__ = ("carry",)

    def __init__(self) -> None:
        self.carry = b""

    def split(self, chunk: bytes) -> Sequence[bytes]:
        """The whole events, without the empty line that ends each. Raises StreamGarbageError."""
        data = self.carry + chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *whole, self.carry = data.split(b"\n\n")
        if len(self.carry) > MAX_EVENT_BYTES:
            raise StreamGarbageError("an event is too long")
        return whole


def payload_of(event: bytes) -> bytes | None:
    """The data of an event; None for comments and other fields."""
    if event.startswith(b"data:"):
        return event[5:].strip()
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            return line[5:].strip()
    return None


class StreamPlan:
    """What has to be done to a stream of completions.

    `collect` gathers usage over all choices and reports it once at the end, as llama-server needs for /v1/completions
    (usage inside the finish chunk) and for several choices (one usage chunk each). With `per_prompt` choices are
    numbered prompt by prompt; otherwise all choices share one prompt.
    """

    __slots__ = (
        "chat",
        "choices_per_prompt",
        "collect",
        "gathering",
        "per_prompt",
        "renames",
        "rewrite",
        "wants_usage",
    )

    def __init__(  # noqa: PLR0913 - a plain record
        self,
        *,
        wants_usage: bool,
        collect: bool = False,
        choices_per_prompt: int = 1,
        per_prompt: bool = False,
        chat: bool = True,
        renames: Renames = (),
        rewrite: Callable[[_Object], None] | None = None,
        gathering: Gathering | None = None,
    ) -> None:
        self.wants_usage = wants_usage
        self.collect = collect
        self.choices_per_prompt = choices_per_prompt
        self.per_prompt = per_prompt
        self.chat = chat
        self.renames = renames
        self.rewrite = rewrite
        """Changes every event that has choices; turns off the passing on of untouched bytes."""
        self.gathering = gathering
        """Takes the events in place of the client."""


class StreamLeveller:
    """Follows one stream of chat or text completions of either engine. See `Leveller`."""

    __slots__ = (
        "_completions",
        "_named",
        "_plain",
        "_plan",
        "_prompts",
        "_renames",
        "_repeats",
        "_splitter",
        "_template",
        "_unnamed",
        "done",
        "error",
        "events",
        "usage",
    )

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan
        self._plain = plan.rewrite is None and plan.gathering is None
        self._renames = plan.renames
        self._repeats = EventRepeats(plan.renames)
        self._splitter = EventSplitter()
        self._template: _Object | None = None
        self._prompts: dict[int, Tokens] = {}
        self._completions = 0
        self._named = 0
        self._unnamed = plan.choices_per_prompt if plan.chat else 0
        self.done = False
        self.error: ApiError | None = None
        self.usage: Tokens | None = None
        self.events = 0

    @property
    def sent_tokens(self) -> int:
        """Engines send one token per event; a choice of a chat may begin with an event that only names the role (that of
        llama.cpp does not when its first token is a part of a character)."""
        return self.events - self._named

    def feed(self, chunk: bytes) -> bytes:
        if self._plain and not self._splitter.carry:
            if not self._unnamed and (renamed := self._repeats.renamed(chunk)):
                self.events += 1
                return renamed
            events = _plain_events(chunk)
            if events:
                self.events += events
                if self._unnamed:
                    self._look_for_role(chunk)
                elif events == 1:
                    self._repeats.learn(chunk)
                return rename(chunk, self._renames) if self._renames else chunk
        return both_reasonings(rename(self._level(self._splitter.split(chunk)), self._renames))

    def tail(self) -> bytes:
        return DONE_EVENT if self.error is None else openai_error_event(self.error) + DONE_EVENT

    def fail(self, error: ApiError) -> None:
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
        payload = payload_of(event)
        if payload is None:
            return event or None
        if payload == b"[DONE]":
            self.done = True
            return self._summary()
        if payload == b"null":
            return None
        try:
            head = decode_head(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        error = bytes(head.error)
        if error != b"null":
            self.fail(map_stream_error(error))
            return None
        if head.choices:
            self.events += 1
            if self._unnamed:
                self._look_for_role(payload)
            event, payload = self._edit(event, payload)
        return event if head.usage is None else self._on_usage(event, payload, head.usage, head.choices or [])

    def _look_for_role(self, data: bytes) -> None:
        """A lone choice is named in its first event or not at all; several begin when they like."""
        named = min(self._unnamed, data.count(b'"role"'))
        self._named += named
        self._unnamed = 0 if self._plan.choices_per_prompt == 1 else self._unnamed - named

    def _edit(self, event: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """The event and its data as rewritten, and handed to the gathering if there is one."""
        if self._plan.rewrite is not None:
            members = msgspec.json.decode(payload, type=_Object)
            self._plan.rewrite(members)
            payload = msgspec.json.encode(members)
            event = b"data: " + payload
        if self._plan.gathering is not None:
            try:
                self._plan.gathering.add(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StreamGarbageError("an event is no chunk of a completion") from error
        return event, payload

    def _on_usage(
        self, event: bytes, payload: bytes, usage: CompletionUsage, choices: list[ChoiceHead]
    ) -> bytes | None:
        tokens = tokens_of(usage)
        if not self._plan.collect:
            self.usage = tokens
            if self._plan.wants_usage:
                return event
        else:
            self._add(tokens, choices[0].index or 0 if choices else 0)
        members = msgspec.json.decode(payload, type=_Object)
        members.pop("usage", None)
        self._template = members
        return b"data: " + msgspec.json.encode(members) if choices else None

    def _add(self, tokens: Tokens, choice: int) -> None:
        """Sum over choices; a prompt that several choices share counts once."""
        prompt = choice // self._plan.choices_per_prompt if self._plan.per_prompt else 0
        self._prompts.setdefault(prompt, tokens)
        self._completions += tokens.completion
        self.usage = Tokens(
            prompt=sum(counted.prompt for counted in self._prompts.values()),
            cached=sum(counted.cached for counted in self._prompts.values()),
            completion=self._completions,
        )

    def _summary(self) -> bytes | None:
        """The single usage chunk that OpenAI sends before the end."""
        if not (
            self._plan.collect and self._plan.wants_usage and self._template is not None and self.usage is not None
        ):
            return None
        members = self._template | {
            "choices": msgspec.Raw(b"[]"),
            "usage": msgspec.Raw(msgspec.json.encode(usage_object(self.usage))),
        }
        members.pop("timings", None)
        return b"data: " + msgspec.json.encode(members)


def _plain_events(chunk: bytes) -> int:
    """How many whole `data:` events a chunk holds if none can need a change, else 0. A raw newline or quote never occurs
    inside a JSON string."""
    if (
        not (chunk.startswith(b"data: {") and chunk.endswith(b"\n\n"))
        or b'"usage"' in chunk
        or b'"error"' in chunk
        or b'"reasoning' in chunk
    ):
        return 0
    if chunk.find(b"\n") == len(chunk) - 2:
        return 1
    if b"\ndata: [" in chunk or b"\n:" in chunk or b"\ndata: n" in chunk:
        return 0
    return chunk.count(b"\ndata:") + 1
