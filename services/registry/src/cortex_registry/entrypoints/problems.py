"""Every error of the admin API as RFC 9457 problem details with a stable `code`."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from cortex_kit.errors import DomainError, TransientError
from cortex_registry.domain.specification import describe_errors, invalid_request
from cortex_registry.errors import UnavailableError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2

PROBLEM_SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457 problem details. Further members depend on `code`.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "`urn:cortex:problem:<code>`"},
        "title": {"type": "string", "description": "The phrase of the status."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is wrong and what to do next, for humans."},
        "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "description": "Stable; branch on this."},
        "errors": {
            "type": "array",
            "description": "One entry per wrong field.",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string", "description": "Path of the field, like `lora_adapters.0.path`."},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
    "example": {
        "type": "urn:cortex:problem:name_taken",
        "title": "Conflict",
        "status": 409,
        "detail": "'gpt-oss-120b' is already the served name or an alias of another model.",
        "code": "name_taken",
        "name": "gpt-oss-120b",
    },
}
"""Schema of every answer that is an error, for OpenAPI."""

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    details: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem response; `details` become further members."""
    body: dict[str, object] = {
        **(details or {}),
        "type": f"urn:cortex:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(
        json.dumps(body, default=str), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every expected exception in this shape; the request guard answers the others."""
    app.add_exception_handler(DomainError, _on_domain_error)
    app.add_exception_handler(TransientError, _on_transient_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_domain_error(_: Request, error: Exception) -> Response:
    refusal = cast(DomainError, error)
    wait = refusal.details.get("retry_after_s")
    headers = {"Retry-After": str(wait)} if wait is not None else None
    return problem(refusal.status, refusal.code, refusal.message, details=refusal.details, headers=headers)


async def _on_transient_error(_: Request, error: Exception) -> Response:
    code, detail = "unavailable", "Something the registry needs is away. Try again in a moment."
    if isinstance(error, UnavailableError):
        code, detail = error.code, error.message
    return problem(503, code, detail, headers={"Retry-After": str(RETRY_AFTER_S)})


async def _on_validation_error(_: Request, error: Exception) -> Response:
    errors = cast(Sequence[ErrorDetails], cast(RequestValidationError, error).errors())
    if any(item["type"] == "json_invalid" for item in errors):
        return problem(400, "invalid_json", "The body is not JSON.")
    refusal = invalid_request(describe_errors(errors))
    return problem(refusal.status, refusal.code, refusal.message, details=refusal.details)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    code = _CODES.get(refusal.status_code, "request_failed")
    headers = dict(refusal.headers or {})
    if refusal.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(cast(FastAPI, request.app), request.url.path))
    return problem(refusal.status_code, code, str(refusal.detail), headers=headers)


def _allowed(app: FastAPI, path: str) -> list[str]:
    """Methods of the resource at `path`: the framework names those of one of its routes only."""
    contexts = [context for context in iter_route_contexts(app.routes) if context.path is not None]
    template = next((one.path for one in contexts if one.path and compile_path(one.path)[0].match(path)), None)
    return sorted({method for one in contexts if one.path == template for method in one.methods or ()})
