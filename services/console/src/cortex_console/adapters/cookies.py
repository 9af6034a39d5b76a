"""The session in the browser's cookies. The console itself keeps none: it may restart, and several may run."""

import re
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from cortex_console.adapters.admin_api import Opened, SessionSecrets, Visitor

SESSION = "cortex_console_session"
CSRF = "cortex_console_csrf"
_SECRET = re.compile(r"[A-Za-z0-9_-]{16,256}")
MAX_AGENT = 200


def read(request: Request) -> SessionSecrets | None:
    """The session of a request; None without one. Whether it is still good only the registry knows."""
    session, csrf = request.cookies.get(SESSION, ""), request.cookies.get(CSRF, "")
    if _SECRET.fullmatch(session) is None or _SECRET.fullmatch(csrf) is None:
        return None
    return SessionSecrets(session, csrf)


def hand_over(response: Response, opened: Opened, *, secure: bool) -> None:
    """Give the session to the browser, out of reach of scripts."""
    for name, value in ((SESSION, opened.secrets.session), (CSRF, opened.secrets.csrf)):
        _set(response, name, value, opened.expires_at, secure=secure)


def forget(response: Response, *, secure: bool) -> None:
    """Make the browser forget the session."""
    for name in (SESSION, CSRF):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def _set(response: Response, name: str, value: str, expires: datetime | None, *, secure: bool) -> None:
    response.set_cookie(name, value, expires=expires, path="/", secure=secure, httponly=True, samesite="strict")


def visitor(request: Request) -> Visitor:
    """Whose browser this is, after the trusted proxies."""
    agent = "".join(c for c in request.headers.get("user-agent", "")[:MAX_AGENT] if c.isascii() and c.isprintable())
    return Visitor(request.client.host if request.client else "", agent, request.url.scheme)
