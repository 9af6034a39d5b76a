"""Either engine's errors in OpenAI's shape: {message, type, param, code: string or null}."""

import re
from dataclasses import dataclass

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.capabilities import ENGINE_NAMES
from cortex_gateway.domain.errors import ApiError

NOT_SUPPORTED = "not_supported_by_model"
TOKENS_OVER_CONTEXT = "max_tokens_over_context"


class _ErrorObject(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: int | str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject | str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"null")
    message: str | None = None


@dataclass(frozen=True, slots=True)
class EngineError:
    """An engine's refusal: `error` is what the client gets unless `loading` lets the gateway try elsewhere."""

    error: ApiError
    loading: bool = False


_MOST_TOKENS = re.compile(r"max_[a-z_]*tokens=\d+ cannot be greater than max_model_len=(\d{1,9})")
_INABILITY_MARKS = (
    "input is not supported - hint",
    "is not a multimodal model",
    "does not support 'previous_response_id'",
    "tool choice requires --enable-auto-tool-choice",
    "requires --tool-call-parser to be set",
    "logprobs is not supported with tools",
)
_OVERFLOW_MARKS = ("maximum context length", "exceeds the available context", "context length", "maximum model length")


def map_engine_error(status: int, body: bytes, engine_type: EngineType | None = None) -> EngineError:
    """Turn either engine's error answer into OpenAI's shape with a string code or null."""
    message, kind, param, code = _read_error(body)
    message = message or f"The engine answered with status {status}."
    if status == 503:
        retry = ApiError(503, "model_loading", message, retry_after_s=2, origin="engine")
        return EngineError(retry, loading=True)
    if status in (401, 403):
        return EngineError(
            ApiError(502, "engine_auth_failed", "The engine refused the gateway's credentials.", origin="engine")
        )
    if status in (404, 501) or _is_inability(message):
        return EngineError(_not_supported(message, param, engine_type))
    if status in (400, 413, 422):
        return EngineError(_bad_request(status, message, kind, param, code))
    return EngineError(ApiError(status, code, message, param=param, origin="engine"))


def _bad_request(status: int, message: str, kind: str | None, param: str | None, code: str | None) -> ApiError:
    if most := _MOST_TOKENS.search(message):
        return TokensOverContextError(message, param, int(most[1]))
    if _is_overflow(kind, message):
        return ApiError(400, "context_length_exceeded", message, param=param or "messages", origin="engine")
    return ApiError(status, code, message, param=param, origin="engine")


class TokensOverContextError(ApiError):
    """vLLM refuses more tokens than its context has, where llama-server stops at its edge."""

    def __init__(self, message: str, param: str | None, most: int) -> None:
        super().__init__(400, TOKENS_OVER_CONTEXT, message, param=param, origin="engine")
        self.most = most


def _not_supported(message: str, param: str | None, engine_type: EngineType | None) -> ApiError:
    """Names the engine, for its own words often do not."""
    who = "The engine" if engine_type is None else f"The engine {ENGINE_NAMES[engine_type]}"
    text = f"{who} of this model does not support this request: {message}"
    return ApiError(400, NOT_SUPPORTED, text, param=param, origin="engine")


def _is_inability(message: str) -> bool:
    """llama-server answers 500 to an image that its model cannot see."""
    return any(mark in message for mark in _INABILITY_MARKS)


def map_stream_error(raw: bytes) -> ApiError:
    """The error object of an event in the middle of a stream."""
    message, kind, param, code = _read_error(b'{"error":' + raw + b"}")
    if _is_overflow(kind, message):
        code = "context_length_exceeded"
    return ApiError(
        500, code or "engine_error", message or "The engine failed.", type_=None, param=param, origin="engine"
    )


def _read_error(body: bytes) -> tuple[str, str | None, str | None, str | None]:
    """(message, type, param, string code) of any error body the engines were seen to send."""
    try:
        parsed = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:500].decode("utf-8", "replace").strip(), None, None, None
    if isinstance(parsed.error, _ErrorObject):
        code = parsed.error.code if isinstance(parsed.error.code, str) else None
        return parsed.error.message, parsed.error.type, parsed.error.param, code
    if isinstance(parsed.error, str):
        return parsed.error, None, None, None
    detail = bytes(parsed.detail).decode("utf-8", "replace").strip('"')
    return parsed.message or ("" if detail == "null" else detail), None, None, None


def _is_overflow(kind: str | None, message: str) -> bool:
    lowered = message.lower()
    return kind == "exceed_context_size_error" or any(mark in lowered for mark in _OVERFLOW_MARKS)
