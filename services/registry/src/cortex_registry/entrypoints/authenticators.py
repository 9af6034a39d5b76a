"""Authenticators for browser sessions and personal tokens, and the cookies of a session."""

import hmac
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Identity
from cortex_registry.domain.passwords import SECRET_CHARACTERS, TOKEN_PREFIX, secret_digest
from cortex_registry.handlers.identity_credentials import Credentials
from cortex_registry.handlers.identity_sign_in import Opened

SESSION_COOKIE = "cortex_session"
CSRF_COOKIE = "cortex_csrf"
CSRF_HEADER = "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SECRET = re.compile(rf"[A-Za-z0-9_-]{{{SECRET_CHARACTERS}}}")


class PersonalToken:
    """Authenticator for `Authorization: Bearer cortex-pat-…`."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def authenticate(self, headers: Headers, method: str) -> Identity | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token.startswith(TOKEN_PREFIX):
            return None
        if _SECRET.fullmatch(token, len(TOKEN_PREFIX)) is None:
            return None
        return await self._credentials.token(token)


class SessionCookie:
    """Authenticator for the console's cookie. A request with a bearer token is never taken for the cookie's user."""

    def __init__(self, credentials: Credentials, origins: "Origins") -> None:
        self._credentials = credentials
        self._origins = origins

    async def authenticate(self, headers: Headers, method: str) -> Identity | None:
        if headers.get("authorization", "").lower().startswith("bearer"):
            return None
        secret = session_secret(headers)
        found = await self._credentials.session(secret) if secret is not None else None
        if found is None:
            return None
        if method not in _SAFE:
            self._origins.require_own(headers)
            given = headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(secret_digest(given), found.csrf_digest):
                raise _forged("the header X-CSRF-Token is missing or wrong")
        return found.identity


class Origins:
    """Which pages may make a browser send changes: those of this address, and those of `allowed`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def require_own(self, headers: Headers) -> None:
        """Raises DomainError 403 `csrf_failed` for a request that another site's page has made a browser send."""
        origins = headers.getlist("origin")
        if any(origin.lower() in self._allowed for origin in origins) and len(origins) == 1:
            return
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            raise _forged("it comes from a page of another site")
        if any(not _is_own(origin, headers.get("host", "")) for origin in origins):
            raise _forged("it comes from a page of another origin")


def _is_own(origin: str, host: str) -> bool:
    """Scheme apart, which a proxy that ends TLS changes."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()


def _forged(reason: str) -> DomainError:
    return DomainError("csrf_failed", f"This change is refused: {reason}.", status=403)


def session_secret(headers: Headers) -> str | None:
    """The secret in the cookie; None when there is none, or when there are several to choose from."""
    values: set[str] = set()
    for header in headers.getlist("cookie"):
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == SESSION_COOKIE:
                values.add(value)
    secret = values.pop() if len(values) == 1 else ""
    return secret if _SECRET.fullmatch(secret) else None


def set_session_cookies(response: Response, opened: Opened, *, secure: bool) -> None:
    """Hand the session to a browser: its secret to nobody but the browser, the CSRF token to the page."""
    age = int((opened.session.expires_at - opened.session.created_at).total_seconds())
    for name, value, hidden in ((SESSION_COOKIE, opened.secret, True), (CSRF_COOKIE, opened.csrf_token, False)):
        response.set_cookie(name, value, max_age=age, path="/", secure=secure, httponly=hidden, samesite="strict")


def clear_session_cookies(response: Response, *, secure: bool) -> None:
    """Make a browser forget the session."""
    for name, hidden in ((SESSION_COOKIE, True), (CSRF_COOKIE, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=hidden, samesite="strict")


def is_secure(request: Request, *, always: bool) -> bool:
    """Whether cookies may only travel by https."""
    return always or request.url.scheme == "https"
