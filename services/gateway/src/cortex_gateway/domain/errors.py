"""Errors as clients of the OpenAI API expect them: {"error": {message, type, param, code}}, code a string or null."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from cortex_kit.errors import DomainError

Origin = Literal["gateway", "engine"]
ORIGIN_HEADER = b"x-cortex-error-origin"

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
_TYPE_BY_STATUS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class ApiError(DomainError):
    """A refusal that becomes an HTTP answer, or an error event when a stream has begun."""

    def __init__(  # noqa: PLR0913 - the error object has that many members
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type_: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        origin: Origin = "gateway",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(code or "", message, status=status)
        self.type = type_ or error_type(status)
        self.openai_code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.origin: Origin = origin
        self.extra_headers = tuple(headers)

    def body(self) -> bytes:
        """The JSON object that the client reads."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.openai_code,
                }
            }
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to this error, content length included."""
        fixed = [
            (b"content-type", b"application/json"),
            (ORIGIN_HEADER, self.origin.encode()),
        ]
        if self.retry_after_s is not None:
            fixed.append((b"retry-after", str(self.retry_after_s).encode()))
        return [*fixed, *self.extra_headers]


def error_type(status: int) -> str:
    """OpenAI's error type for a status."""
    return _TYPE_BY_STATUS.get(status, SERVER_ERROR if status >= 500 else INVALID_REQUEST)


def missing_api_key() -> ApiError:
    return ApiError(
        401,
        "invalid_api_key",
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
        type_=INVALID_REQUEST,
        headers=[(b"www-authenticate", b"Bearer")],
    )


def invalid_api_key(hint: str) -> ApiError:
    return ApiError(
        401,
        "invalid_api_key",
        f"Incorrect API key provided: {hint}. Ask your administrator for a key of this Cortex.",
        type_=INVALID_REQUEST,
        headers=[(b"www-authenticate", b"Bearer")],
    )


def expired_api_key() -> ApiError:
    return ApiError(
        401,
        "invalid_api_key",
        "This API key has expired. Ask your administrator for a new one.",
        type_=INVALID_REQUEST,
        headers=[(b"www-authenticate", b"Bearer")],
    )


def address_not_allowed() -> ApiError:
    return ApiError(403, "ip_not_allowed", "This API key may not be used from your address.")


def scope_missing(scope: str) -> ApiError:
    return ApiError(403, "insufficient_scope", f"This API key lacks the scope '{scope}'.")


def model_not_allowed(model: str) -> ApiError:
    return ApiError(403, "model_not_allowed", f"This API key may not use the model '{model}'.", param="model")


def model_not_found(model: str) -> ApiError:
    return ApiError(
        404,
        "model_not_found",
        f"The model '{model}' does not exist or you do not have access to it.",
        param="model",
    )


def wrong_task(model: str, task: str, routes: str) -> ApiError:
    return ApiError(
        400, "model_task_mismatch", f"The model '{model}' serves the task '{task}': use {routes}.", param="model"
    )


def unknown_url(method: str, path: str) -> ApiError:
    return ApiError(404, "unknown_url", f"Unknown request URL: {method} {path}. See GET /v1/models and the guide.")


def response_not_stored(response_id: str) -> ApiError:
    return ApiError(
        404,
        "response_not_stored",
        f"There is no response '{response_id[:64]}': engines answer responses at once and keep none, so nothing can be "
        "fetched, deleted or cancelled later.",
        param="response_id",
    )


def method_not_allowed(method: str, path: str, allowed: str) -> ApiError:
    return ApiError(
        405,
        "method_not_allowed",
        f"Not allowed to {method} on {path}; use {allowed}.",
        headers=[(b"allow", allowed.encode())],
    )


def invalid_json(detail: str) -> ApiError:
    return ApiError(400, "invalid_json", f"The request body is not valid JSON: {detail}.")


def invalid_value(param: str | None, detail: str) -> ApiError:
    return ApiError(400, "invalid_value", detail, param=param)


def body_too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than the limit of {limit} bytes.")


def body_too_slow() -> ApiError:
    return ApiError(408, "request_timeout", "The request body did not arrive in time.")


def model_unavailable(model: str, state: str, reason: str, retry_after_s: int) -> ApiError:
    """`state` is loading, failed, stopped, starting or unreachable; it becomes the code `model_<state>`."""
    detail = f": {reason}" if reason else ""
    return ApiError(
        503, f"model_{state}", f"The model '{model}' is not available ({state}{detail}).", retry_after_s=retry_after_s
    )


def draining() -> ApiError:
    return ApiError(503, "gateway_draining", "This gateway is shutting down; try again.", retry_after_s=1)


def not_synced() -> ApiError:
    return ApiError(
        503, "gateway_starting", "This gateway has not read its configuration yet; try again.", retry_after_s=1
    )


def keys_outdated() -> ApiError:
    return ApiError(
        503,
        "keys_outdated",
        "This gateway has not heard of its API keys for too long to accept any; try again later.",
        retry_after_s=5,
    )


def engine_timeout(seconds: float) -> ApiError:
    return ApiError(504, "engine_timeout", f"The engine did not answer within {seconds:g} s.")


def engine_lost() -> ApiError:
    return ApiError(502, "engine_connection_lost", "The connection to the engine broke before the answer was complete.")


def engine_answer_unusable(detail: str) -> ApiError:
    return ApiError(502, "engine_answer_invalid", f"The engine's answer could not be used: {detail}.")


def internal_error() -> ApiError:
    return ApiError(500, "internal_error", "The gateway failed unexpectedly; the request id names the log entry.")
