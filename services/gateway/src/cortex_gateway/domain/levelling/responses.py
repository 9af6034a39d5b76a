"""llama-server's responses as OpenAI has them: its events lack the positions and most of the response object."""

import msgspec

_Object = dict[str, msgspec.Raw]
_ITEM_EVENTS = ("response.output_item.added", "response.output_item.done")
_PART_EVENTS = ("response.content_part.", "response.output_text.", "response.reasoning_text.", "response.refusal.")


class _Usage(msgspec.Struct):
    output_tokens: int = 0


class _Ended(msgspec.Struct):
    usage: _Usage | None = None


class ResponseEvents:
    """Fills in what is missing, event by event.

    Args:
        model: the name that the client asked for.
        most: `max_output_tokens` of the request; an answer that long was cut off.
    """

    def __init__(self, model: str, most: int | None) -> None:
        self._model = model
        self._most = most
        self._sequence = 0
        self._item = -1

    def complete(self, kind: str, payload: bytes) -> bytes:
        """The event with all that the official clients build on. An answer that was cut off ends with
        `response.completed` and the status `incomplete`, as vLLM has it: OpenAI's client waits for that event."""
        members = msgspec.json.decode(payload, type=_Object)
        members.pop("timings", None)
        if kind == "response.output_item.added":
            self._item += 1
        if kind in _ITEM_EVENTS or kind.startswith((*_PART_EVENTS, "response.function_call_arguments.")):
            members.setdefault("output_index", _raw(max(0, self._item)))
        if kind.startswith(_PART_EVENTS):
            members.setdefault("content_index", _raw(0))
        if kind.startswith("response.output_text."):
            members.setdefault("logprobs", _raw([]))
        if kind.startswith("response.content_part.") and "part" in members:
            members["part"] = _with(members["part"], {"annotations": []})
        if "response" in members:
            members["response"] = complete_response(members["response"], self._model, self._most)
        members["sequence_number"] = _raw(self._sequence)
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode(members)


def complete_response(raw: msgspec.Raw | bytes, model: str, most: int | None) -> msgspec.Raw:
    """A response object with the members that OpenAI always gives. Raises msgspec.DecodeError."""
    members = msgspec.json.decode(raw, type=_Object)
    for name, value in _ALWAYS.items():
        members.setdefault(name, _raw(value))
    members.setdefault("model", _raw(model))
    ended = msgspec.json.decode(raw, type=_Ended)
    if most is not None and ended.usage is not None and ended.usage.output_tokens >= most:
        members["status"] = _raw("incomplete")
        members["incomplete_details"] = _raw({"reason": "max_output_tokens"})
    return msgspec.Raw(msgspec.json.encode(members))


_ALWAYS: dict[str, object] = {
    "created_at": 0,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "output": [],
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}


def _with(raw: msgspec.Raw, defaults: dict[str, object]) -> msgspec.Raw:
    members = msgspec.json.decode(raw, type=_Object)
    for name, value in defaults.items():
        members.setdefault(name, _raw(value))
    return msgspec.Raw(msgspec.json.encode(members))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
