"""HTTP clients that keep nothing between users: no cookies, no proxies of the environment."""

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from cortex_console.domain.shapes import Row, row, rows, text
from cortex_console.errors import UNAVAILABLE, ConsoleError, FieldError

KEEP_CONNECTION_S = 2.0
"""Less than servers keep one (uvicorn: 5 s): who takes one at the moment it is closed gets no answer."""


def new_client(url: str, *, timeout_s: float, connections: int) -> httpx.AsyncClient:
    """One for the life of the process. Cookies of answers are dropped: they are some user's."""
    jar = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(timeout_s, connect=3.0),
        limits=httpx.Limits(
            max_connections=None, max_keepalive_connections=connections, keepalive_expiry=KEEP_CONNECTION_S
        ),
        cookies=jar,
        trust_env=False,
    )


def refusal(response: httpx.Response) -> ConsoleError:
    """The error that an answer with a problem stands for; its body must have been read."""
    body = _json(response)
    code = text(body.get("code")) or f"http_{response.status_code}"
    message = text(body.get("detail")) or f"The registry answered {response.status_code}."
    fields = tuple(
        FieldError(text(one.get("field")), text(one.get("code")), text(one.get("message")))
        for one in rows(body.get("errors"))
    )
    known = {"type", "title", "status", "detail", "code", "errors"}
    details = {key: value for key, value in body.items() if key not in known}
    after = response.headers.get("retry-after", "")
    return ConsoleError(
        response.status_code,
        code,
        message,
        fields=fields,
        details=details,
        retry_after_s=int(after) if after.isdecimal() else None,
    )


def unreachable(error: httpx.HTTPError) -> ConsoleError:
    """The error for no answer at all."""
    if isinstance(error, httpx.ReadTimeout):
        return ConsoleError(0, UNAVAILABLE, "The registry took too long to answer. Try again.")
    return ConsoleError(0, UNAVAILABLE, "The registry cannot be reached. It may be starting: try again in a moment.")


def _json(response: httpx.Response) -> Row:
    try:
        return row(response.json())
    except ValueError:
        return {}
