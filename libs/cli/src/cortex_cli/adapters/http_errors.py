"""Turns what HTTP servers refuse into one clear line."""

from collections.abc import Mapping
from typing import Any

import httpx

from cortex_cli.errors import CliError, ExitCode, not_running
from cortex_cli.shapes import as_list, as_object, parse_object

HINTS: Mapping[str, str] = {
    "unauthorized": "the token is wrong, revoked or expired: `cortex login`, or set CORTEX_ADMIN_TOKEN (`cortex whoami`)",
    "invalid_credentials": "try again; an administrator can give you a new one-time password",
    "password_change_required": "sign in with `cortex login`, which asks for a new password",
    "session_required": "sign in with `cortex login`",
    "user_not_found": "see `cortex user list`",
    "org_not_found": "see `cortex org list`",
    "token_not_found": "see `cortex token list`",
    "invalid_api_key": "make a key with `cortex key create NAME` and set CORTEX_API_KEY",
    "model_not_found": "see `cortex model list`",
    "not_found": "see `cortex model list` or `cortex key list`",
    "file_not_found": "put the file into the models directory (`cortex status` shows it)",
    "path_outside_models_root": "put the file into the models directory (`cortex status` shows it)",
    "database_unavailable": "try again in a moment (`cortex status`)",
}


class ApiError(CliError):
    """A refusal by the admin API or the gateway; `status` is the HTTP status."""

    def __init__(self, status: int, code: str, message: str, fix: str) -> None:
        super().__init__(message, code=code, fix=fix)
        self.status = status


def api_error(status: int, body: str) -> ApiError:
    """Read RFC 9457 problem+json of the admin API, or an OpenAI error object of the gateway."""
    answer = parse_object(body)
    problem = as_object(answer.get("error")) or answer
    code = str(problem.get("code") or problem.get("type") or f"http_{status}")
    message = str(problem.get("detail") or problem.get("message") or problem.get("title") or f"HTTP {status}")
    return ApiError(status, code, message + _field_errors(problem), HINTS.get(code, ""))


def transport_error(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> CliError:
    """A server that does not answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return not_running(url)
    if isinstance(error, httpx.TimeoutException):
        return CliError(f"{url} does not answer in time.", fix="see `cortex status` and the logs folder of the home")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return CliError(f"{url} is not an address: {error}.", exit_code=ExitCode.USAGE)
    return CliError(f"{url} broke the connection ({type(error).__name__}).", fix="try again; see `cortex status`")


def _field_errors(problem: Mapping[str, Any]) -> str:
    """What a 422 says of each field, unless the text says it already."""
    detail = str(problem.get("detail"))
    errors = [as_object(item) for item in as_list(problem.get("errors"))]
    parts = [
        f"{item['field']}: {item.get('message', 'is not accepted')}"
        for item in errors
        if item.get("field") and str(item.get("message")) not in detail
    ]
    return f" ({'; '.join(parts)})" if parts else ""
