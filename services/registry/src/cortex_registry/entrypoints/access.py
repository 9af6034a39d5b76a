"""Rights of routes: each route declares one, the guard asks for it, and the application refuses to be built without.

`Authentication` (guards.py) has found out who asks before routing; here is decided whether they may.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Caller, Identity
from cortex_registry.entrypoints.guards import ADMIN, IDENTITY, REQUEST_ID

RIGHT = "x-cortex-right"
"""Name in the OpenAPI description of the right that an operation asks for."""


class Routes:
    """Collects routes of one area. The only way to add one takes the right it asks for."""

    def __init__(self, tag: str) -> None:
        tags: list[str | Enum] = [tag]
        self.router = APIRouter(tags=tags)

    def add(self, method: str, path: str, endpoint: Callable[..., Any], right: Right, **options: Any) -> None:
        """Add `METHOD /admin<path>`; `options` are those of APIRouter.add_api_route."""
        extra: dict[str, Any] = {**options.pop("openapi_extra", {}), RIGHT: right.value}
        dependencies: Sequence[Any] = [*options.pop("dependencies", []), Depends(Requires(right))]
        self.router.add_api_route(
            path, endpoint, methods=[method], openapi_extra=extra, dependencies=dependencies, **options
        )


@dataclass(frozen=True, slots=True)
class Requires:
    """A dependency that refuses whoever lacks `right` with 403 `forbidden`."""

    right: Right

    async def __call__(self, request: Request) -> None:
        right = self.right
        if right is Right.PUBLIC:
            return
        identity = identity_of(request)
        if identity.must_change_password and right is not Right.ACCOUNT:
            raise DomainError("password_change_required", "Change your password first.", status=403)
        if not identity.may(right):
            message = f"A {identity.role} may not do this: it takes the right {right.value}."
            raise DomainError("forbidden", message, status=403, details={"right": right.value})


def identity_of(request: Request) -> Identity:
    """Who asks; raises DomainError 401 `unauthorized` on a public route that nobody signed in for."""
    identity = request.scope.get(IDENTITY)
    if not isinstance(identity, Identity):
        raise DomainError("unauthorized", "Sign in first.", status=401)
    return identity


def caller_of(request: Request) -> Caller:
    """Who asks, from where, in which request."""
    address = request.client.host if request.client is not None else None
    return Caller(identity_of(request), request.scope.get(REQUEST_ID), address)


CallerOf = Annotated[Caller, Depends(caller_of)]
IdentityOf = Annotated[Identity, Depends(identity_of)]


def check_rights(app: FastAPI) -> None:
    """Refuse an application with a route below /admin, of whatever kind, that does not ask for the right it declares.

    Raises:
        RuntimeError: naming the routes.
    """
    missing = [
        str(context.path)
        for context in iter_route_contexts(app.routes)
        if (context.path is None or context.path.startswith(ADMIN))
        and context.path != app.openapi_url
        and _asked_right(context) is None
    ]
    if missing:
        raise RuntimeError(f"routes without a declared right: {', '.join(missing)}")


def _asked_right(context: RouteContext) -> Right | None:
    """The right that a route declares and asks for; None when it does not do both."""
    route = context.original_route
    if not isinstance(route, APIRoute):
        return None
    asked = [one.call.right for one in route.dependant.dependencies if isinstance(one.call, Requires)]
    declared = (route.openapi_extra or {}).get(RIGHT)
    return asked[0] if len(asked) == 1 and declared == asked[0].value else None
