"""A whole answer put together from a stream.

llama-server counts only the first choice of an answer that is no stream, but reports the usage of each choice of a stream:
so several choices or prompts are asked for as a stream, and the client gets the one document that it asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cortex_gateway.domain.usage import Tokens

_JOINED = ("content", "reasoning_content", "refusal")


class _Function(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, omit_defaults=True):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    choices: list[_Choice] | None = None


@dataclass(slots=True)
class _Whole:
    """One choice so far."""

    parts: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    tools: dict[int, _ToolCall] = field(default_factory=dict[int, _ToolCall])
    logprobs: list[msgspec.Raw] | None = None
    finish_reason: str | None = None


class Gathering:
    """Takes the events of a stream; gives the document at the end."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._first: _Chunk | None = None
        self._choices: dict[int, _Whole] = {}

    def add(self, payload: bytes) -> None:
        """One event's data. Raises msgspec.DecodeError or UnicodeDecodeError when it is no chunk."""
        chunk = msgspec.json.decode(payload, type=_Chunk)
        self._first = self._first or chunk
        for choice in chunk.choices or ():
            self._add(self._choices.setdefault(choice.index, _Whole()), choice)

    def _add(self, whole: _Whole, choice: _Choice) -> None:
        whole.finish_reason = choice.finish_reason or whole.finish_reason
        if choice.text is not None:
            whole.parts.setdefault("text", []).append(choice.text)
        if choice.logprobs is not None and choice.logprobs.content:
            whole.logprobs = [*(whole.logprobs or ()), *choice.logprobs.content]
        if choice.delta is None:
            return
        for name in _JOINED:
            part: str | None = getattr(choice.delta, name)
            if part is not None:
                whole.parts.setdefault(name, []).append(part)
        for call in choice.delta.tool_calls or ():
            _add_call(whole.tools, call)

    def document(self, tokens: Tokens) -> bytes:
        """The answer as the engine would have given it, with the usage of all choices."""
        first = self._first or _Chunk()
        described = {"system_fingerprint": first.system_fingerprint} if first.system_fingerprint is not None else {}
        return msgspec.json.encode(
            {
                "choices": [self._choice(index, whole) for index, whole in sorted(self._choices.items())],
                "created": first.created,
                "model": first.model,
                **described,
                "object": "chat.completion" if self._chat else "text_completion",
                "usage": usage_object(tokens),
                "id": first.id,
            }
        )

    def _choice(self, index: int, whole: _Whole) -> Mapping[str, object]:
        logprobs = None if whole.logprobs is None else {"content": whole.logprobs}
        if not self._chat:
            text = "".join(whole.parts.get("text", ()))
            return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": whole.finish_reason}
        message: dict[str, object] = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in whole.parts.items()}
        if whole.tools:
            message["tool_calls"] = [
                {"type": call.type or "function", "id": call.id, "function": call.function}
                for _, call in sorted(whole.tools.items())
            ]
        elif message["content"] is None:
            message["content"] = ""
        shown = {} if logprobs is None else {"logprobs": logprobs}
        return {"finish_reason": whole.finish_reason, "index": index, "message": message, **shown}


def usage_object(tokens: Tokens) -> dict[str, object]:
    """The usage of a completion as OpenAI tells it."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }


def _add_call(tools: dict[int, _ToolCall], part: _ToolCall) -> None:
    """Name and id come first, the arguments piece by piece."""
    call = tools.setdefault(part.index, _ToolCall(part.index, function=_Function(arguments="")))
    call.id = call.id or part.id
    call.type = call.type or part.type
    if part.function is not None and call.function is not None:
        call.function.name = call.function.name or part.function.name
        call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")
