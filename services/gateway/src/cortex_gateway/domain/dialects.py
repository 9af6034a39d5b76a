"""The shape in which each API tells of errors: OpenAI's object, Anthropic's, and the events of their streams."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from cortex_gateway.domain.errors import ApiError


class Dialect(StrEnum):
    """Whose API a path belongs to."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_ANTHROPIC_PATH = "/v1/messages"
_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def dialect_of(path: str) -> Dialect:
    """The dialect of a path, known to the gateway or not."""
    if path.startswith(_ANTHROPIC_PATH) and path[len(_ANTHROPIC_PATH) :][:1] in ("", "/"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI


def error_body(error: ApiError, dialect: Dialect, request_id: str) -> bytes:
    """The JSON object that the client reads."""
    if dialect is Dialect.OPENAI:
        return error.body()
    return msgspec.json.encode(_anthropic(error) | {"request_id": request_id})


def openai_error_event(error: ApiError) -> bytes:
    """An error inside a stream of chat or text completions; the official client raises when it meets it."""
    return b"data: " + error.body() + b"\n\n"


def anthropic_error_event(error: ApiError) -> bytes:
    """An error inside a stream of messages; the official client raises when it meets it."""
    return b"event: error\ndata: " + msgspec.json.encode(_anthropic(error)) + b"\n\n"


def responses_error_event(error: ApiError, sequence_number: int) -> bytes:
    """An error inside a stream of responses: flat as documented, and as an object, at which the client raises."""
    return b"event: error\ndata: " + msgspec.json.encode(_responses(error, sequence_number)) + b"\n\n"


def _responses(error: ApiError, sequence_number: int) -> dict[str, object]:
    detail = {"code": error.openai_code, "message": error.message, "param": error.param}
    return {
        "type": "error",
        **detail,
        "sequence_number": sequence_number,
        "error": {"type": error.type, **detail},
    }


def _anthropic(error: ApiError) -> dict[str, object]:
    """`code` is ours: the same stable code that OpenAI's clients get."""
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message, "code": error.openai_code}}
