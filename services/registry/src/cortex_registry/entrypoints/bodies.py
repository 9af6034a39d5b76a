"""What a request may consist of, before any route looks: JSON in UTF-8, said once, of bounded depth, of storable text."""

import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_registry.domain.text import find_unstorable
from cortex_registry.entrypoints.guards import ADMIN
from cortex_registry.entrypoints.problems import problem

MAX_DEPTH = 32
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_JSON_TYPE = re.compile(r"application/(?:[A-Za-z0-9.+-]+\+)?json", re.IGNORECASE)
_NUL = re.compile(rb"\x00|%00")


class BadBodyError(Exception):
    """A body that no route takes."""

    def __init__(self, status: int, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field

    def answer(self) -> Response:
        """As a problem."""
        details = None
        if self.field is not None:
            details = {"errors": [{"field": self.field, "code": self.code, "message": self.detail}]}
        return problem(self.status, self.code, self.detail, details=details)


class StrictBodies:
    """ASGI layer below /admin: routes see a body only after it passed `check_body`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(ADMIN):
            await self._app(scope, receive, send)
            return
        try:
            check_address(scope)
            body = await read_body(receive)
            if body is None:
                return  # the client has gone
            check_body(Headers(scope=scope).get("content-type", ""), body)
        except BadBodyError as error:
            await error.answer()(scope, receive, send)
            return
        except HTTPException as error:  # the limit on bodies, which is found out while reading
            await problem(error.status_code, "body_too_large", error.detail)(scope, receive, send)
            return
        await self._app(scope, Replayed(body, receive), send)


class Replayed:
    """A receive channel that gives a body which was read before, then what really comes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            return await self._receive()
        return {"type": "http.request", "body": body, "more_body": False}


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, which the layer outside has bounded; None when the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def check_address(scope: Scope) -> None:
    """Refuse a NUL character in path or query, which no name and no filter can hold.

    Raises:
        BadBodyError: 404 or 422.
    """
    if "\x00" in scope["path"]:
        raise BadBodyError(404, "not_found", "There is nothing at a path with a NUL character.")
    if _NUL.search(scope.get("query_string", b"")):
        raise BadBodyError(422, "invalid_request", "The query holds a NUL character.", field="query")


def check_body(content_type: str, body: bytes) -> None:
    """Refuse what is not plain JSON.

    Raises:
        BadBodyError: 415 another media type; 400 not JSON, a repeated member, too deep; 422 text that cannot be stored.
    """
    if not body:
        return
    if not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise BadBodyError(415, "unsupported_media_type", "The body must be JSON: Content-Type: application/json.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadBodyError(400, "invalid_json", "The body is not UTF-8.") from None
    _check_depth(text)
    try:
        parsed = json.loads(text, object_pairs_hook=_members, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadBodyError(400, "invalid_json", "The body is not JSON.") from None
    place = find_unstorable(parsed)
    if place is not None:
        field = ".".join(str(part) for part in place)[:256]
        detail = "The request holds a NUL character or half a surrogate pair."
        raise BadBodyError(422, "invalid_request", detail, field=field.encode("ascii", "replace").decode())


def _check_depth(text: str) -> None:
    """Before parsing, since parsers of deep JSON recurse; strings are taken out first, for they may hold brackets."""
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadBodyError(400, "json_too_deep", f"The body nests deeper than {MAX_DEPTH} levels.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        double = next(name for name, _ in pairs if name in seen or seen.add(name))
        detail = f"The body says {double[:64]!r} twice."
        raise BadBodyError(400, "duplicate_member", detail)
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
