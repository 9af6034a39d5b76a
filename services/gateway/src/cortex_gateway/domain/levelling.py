"""What differs between the engines, made equal on the way in and in error answers. Streams: see streams.py."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.requests import RequestFields, StreamOptions

_INCLUDE_USAGE = b'"stream_options":{"include_usage":true}'
_Object = dict[str, msgspec.Raw]


def prepare_body(
    body: bytes, fields: RequestFields, served_name: str, defaults: Mapping[str, msgspec.Raw], *, streaming: bool
) -> bytes:
    """The body for the engine: the very same bytes unless something has to change.

    An alias becomes the served name, absent keys take the model's defaults, and a stream always reports its usage
    (the client sees it only if it asked, see StreamLeveller).
    """
    inject = streaming and not fields.wants_usage
    if fields.model == served_name and not defaults:
        if not inject:
            return body
        if fields.stream_options is None and b'"stream_options"' not in body:
            return _splice(body, _INCLUDE_USAGE)
    return _rewrite(body, fields, served_name, defaults, inject=inject)


def _splice(body: bytes, member: bytes) -> bytes:
    """Add a member to a JSON object that has at least one, without touching the rest."""
    return body[: body.rindex(b"}")] + b"," + member + b"}"


def _rewrite(
    body: bytes, fields: RequestFields, served_name: str, defaults: Mapping[str, msgspec.Raw], *, inject: bool
) -> bytes:
    members = msgspec.json.decode(body, type=_Object)
    for name, value in defaults.items():
        members.setdefault(name, value)
    if fields.model != served_name:
        members["model"] = msgspec.Raw(msgspec.json.encode(served_name))
    if inject:
        options = _stream_options(members, fields.stream_options)
        options["include_usage"] = msgspec.Raw(b"true")
        members["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)


def _stream_options(members: _Object, given: StreamOptions | None) -> _Object:
    return {} if given is None else msgspec.json.decode(members["stream_options"], type=_Object)


def check_request(engine_type: EngineType, fields: RequestFields) -> None:
    """Raises ApiError 400 for what an engine would silently ignore."""
    if engine_type is EngineType.LLAMACPP and fields.dimensions is not None:
        raise errors.invalid_value("dimensions", "This model cannot change the dimensions of its embeddings.")


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


_OVERFLOW_MARKS = ("maximum context length", "exceeds the available context", "context length", "maximum model length")


def map_engine_error(status: int, body: bytes) -> EngineError:
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
    if status == 404:
        return EngineError(ApiError(400, "not_supported_by_model", message, origin="engine"))
    if status == 501:
        return EngineError(ApiError(400, "not_supported_by_model", message, origin="engine"))
    if status in (400, 413, 422) and _is_overflow(kind, message):
        return EngineError(
            ApiError(400, "context_length_exceeded", message, param=param or "messages", origin="engine")
        )
    return EngineError(ApiError(status, code, message, param=param, origin="engine"))


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
