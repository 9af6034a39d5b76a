"""What is refused before any engine is asked, because the engines would disagree on it, ignore it, or fail oddly."""

from collections.abc import Callable, Mapping

import msgspec

from cortex_gateway.domain import errors
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.engine_errors import NOT_SUPPORTED
from cortex_gateway.domain.request_fields import NULL, RequestFields
from cortex_gateway.domain.requests import ApiRoute, prompt_items

MAX_CHOICES = 128
"""As OpenAI has it; each choice is a whole generation."""
MAX_MESSAGES = 2048
"""llama-server takes time that grows with the square of their number: minutes for ten thousand."""
_FIRST_BYTES = 64
_ARRAY_OF_OBJECTS = b"[{"
_Check = Callable[[RequestFields], None]


def check_shape(api: ApiRoute, fields: RequestFields) -> None:
    """What is wrong whichever engine it is for.

    Raises:
        ApiError: 400 `invalid_value`, or `not_supported_by_model` for what no engine of Cortex can do.
    """
    check = _CHECKS.get(api.path)
    if check is not None:
        check(fields)


def check_request(fields: RequestFields, able: Capabilities) -> None:
    """What this engine would silently ignore, or refuse without saying why.

    Raises:
        ApiError: 400 naming the engine and the reason.
    """
    if able.engine_type == "llamacpp":
        _check_llamacpp(fields, able)
    if able.tools is False and _wants_tools(fields):
        raise unsupported(able, "tools", "it has no parser for tool calls (set `tool_call_parser`, or Jinja templates)")


def unsupported(able: Capabilities, param: str, reason: str) -> ApiError:
    """A refusal that names the engine and the reason."""
    text = f"The engine {able.engine} of this model does not support `{param}` here: {reason}."
    return ApiError(400, NOT_SUPPORTED, text, param=param)


def _check_llamacpp(fields: RequestFields, able: Capabilities) -> None:
    if fields.dimensions is not None:
        raise unsupported(able, "dimensions", "it cannot change the dimensions of its embeddings")
    if fields.n is not None and able.slots is not None and fields.n > able.slots:
        raise unsupported(able, "n", f"it has {able.slots} slots, so it makes at most {able.slots} choices at once")
    if fields.max_tokens == 0:
        raise unsupported(able, "max_tokens", "it always makes at least one token")
    if fields.echo:
        if fields.logprobs is not None and fields.logprobs is not False:
            raise unsupported(able, "echo", "it gives no logprobs of the prompt")
        if any(bytes(item)[:1] != b'"' for item in prompt_items(fields)):
            raise unsupported(able, "echo", "it cannot repeat a prompt that is given as tokens")


def _wants_tools(fields: RequestFields) -> bool:
    if fields.tools is NULL or bytes(fields.tools) in (b"null", b"[]"):
        return False
    return bytes(fields.tool_choice) != b'"none"'


def _check_chat(fields: RequestFields) -> None:
    require_items(fields.messages, "messages")
    if fields.logprobs is not None and not isinstance(fields.logprobs, bool):
        raise errors.invalid_value("logprobs", "Invalid request: `logprobs` must be true or false.")
    _check_common(fields)


def _check_completions(fields: RequestFields) -> None:
    raw = bytes(fields.prompt)
    if raw in (b"null", b'""') or _is_empty_array(raw):
        raise errors.invalid_value("prompt", "Invalid request: `prompt` must not be empty.")
    if isinstance(fields.logprobs, bool) or (fields.logprobs is not None and fields.logprobs < 0):
        raise errors.invalid_value("logprobs", "Invalid request: `logprobs` must be a number of alternatives.")
    if fields.max_tokens == 0 and fields.echo:
        fields = _without_limit(fields)
    _check_common(fields)


def _without_limit(fields: RequestFields) -> RequestFields:
    """To score a prompt (`echo` with no tokens) is the one use of `max_tokens: 0`."""
    return msgspec.structs.replace(fields, max_tokens=None)


def _check_embeddings(fields: RequestFields) -> None:
    raw = bytes(fields.input)
    if raw == b'""' or _is_empty_array(raw) or (raw == b"null" and fields.messages is NULL):
        raise errors.invalid_value("input", "Invalid request: `input` must not be empty.")


def _check_responses(fields: RequestFields) -> None:
    raw = bytes(fields.input)
    if raw == b"null" or _is_empty_array(raw):
        raise errors.invalid_value("input", "Invalid request: `input` must not be empty.")
    _at_least_one(fields.max_output_tokens, "max_output_tokens")
    reason = "engines keep no responses: send the whole conversation as `input`"
    if fields.previous_response_id is not None:
        raise ApiError(400, NOT_SUPPORTED, f"`previous_response_id`: {reason}.", param="previous_response_id")
    if fields.background:
        raise ApiError(400, NOT_SUPPORTED, f"`background`: {reason}.", param="background")


def _check_messages(fields: RequestFields) -> None:
    require_items(fields.messages, "messages")
    if fields.max_tokens is None:
        raise errors.invalid_value("max_tokens", "Invalid request: `max_tokens` is required.")
    _at_least_one(fields.max_tokens, "max_tokens")


def _check_counting(fields: RequestFields) -> None:
    require_items(fields.messages, "messages")


def _check_common(fields: RequestFields) -> None:
    if fields.max_tokens is not None:
        _at_least_one(fields.max_tokens, "max_tokens")
    if fields.max_completion_tokens is not None:
        _at_least_one(fields.max_completion_tokens, "max_completion_tokens")
    if fields.n is not None and not 1 <= fields.n <= MAX_CHOICES:
        raise errors.invalid_value("n", f"Invalid request: `n` must be between 1 and {MAX_CHOICES}.")
    if fields.stream_options is not None and not fields.stream:
        raise errors.invalid_value("stream_options", "Invalid request: `stream_options` needs `stream`.")


def _at_least_one(value: int | None, name: str) -> None:
    if value is not None and value < 1:
        raise errors.invalid_value(name, f"Invalid request: `{name}` must be at least 1.")


def require_items(raw: msgspec.Raw, name: str) -> None:
    """Raises ApiError 400 for what is no array, or one of nothing."""
    view = memoryview(raw)
    size = len(view)
    if bytes(view[:2]) != _ARRAY_OF_OBJECTS:
        _require_array(bytes(view[:_FIRST_BYTES]), name)
    if size > MAX_MESSAGES and bytes(raw).count(b"{") > MAX_MESSAGES:
        _refuse_too_many(raw, name)


def _require_array(head: bytes, name: str) -> None:
    if not head.startswith(b"["):
        raise errors.invalid_value(name, f"Invalid request: `{name}` must be an array.")
    if head[1:].lstrip().startswith(b"]"):
        raise errors.invalid_value(name, f"Invalid request: `{name}` must not be empty.")


def _refuse_too_many(raw: msgspec.Raw, name: str) -> None:
    if len(msgspec.json.decode(raw, type=list[msgspec.Raw])) > MAX_MESSAGES:
        raise errors.invalid_value(name, f"Invalid request: `{name}` may hold at most {MAX_MESSAGES} messages.")


def _is_empty_array(raw: bytes) -> bool:
    return raw[:1] == b"[" and raw[1:_FIRST_BYTES].lstrip()[:1] == b"]"


_CHECKS: Mapping[str, _Check] = {
    "/v1/chat/completions": _check_chat,
    "/v1/completions": _check_completions,
    "/v1/embeddings": _check_embeddings,
    "/v1/responses": _check_responses,
    "/v1/messages": _check_messages,
    "/v1/messages/count_tokens": _check_counting,
}
