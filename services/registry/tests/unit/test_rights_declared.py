"""No route below /admin without a right: the application refuses to be built."""

from typing import Any

import pytest
from fastapi import APIRouter, Depends, WebSocket
from fastapi.responses import PlainTextResponse

from cortex_contracts.rights import GRANTS, Right, Role, lower_role
from cortex_registry.domain.identity import ROOT, CredentialKind, Identity
from cortex_registry.entrypoints.access import RIGHT, Requires, Routes
from cortex_registry.entrypoints.http import create_app


async def endpoint() -> None:
    """Does nothing."""


async def socket(websocket: WebSocket) -> None:
    """Does nothing."""


def build(*routers: APIRouter) -> Any:
    return create_app(list(routers), readiness={}, authenticators=[], max_body_bytes=1000)


def plain() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/plain", endpoint)
    return router


def only_declared() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/plain", endpoint, openapi_extra={RIGHT: "models:read"})
    return router


def only_asked() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/plain", endpoint, dependencies=[Depends(Requires(Right.MODELS_READ))])
    return router


def another_than_declared() -> APIRouter:
    router = APIRouter()
    extra = {RIGHT: Right.USERS_WRITE.value}
    router.add_api_route("/plain", endpoint, dependencies=[Depends(Requires(Right.MODELS_READ))], openapi_extra=extra)
    return router


def nested() -> APIRouter:
    outer = Routes("test").router
    outer.include_router(plain(), prefix="/deep")
    return outer


def starlette_route() -> APIRouter:
    router = APIRouter()
    router.add_route("/plain", PlainTextResponse("secret"))
    return router


def mounted() -> APIRouter:
    router = APIRouter()
    router.mount("/plain", PlainTextResponse("secret"))
    return router


def web_socket() -> APIRouter:
    router = APIRouter()
    router.add_api_websocket_route("/plain", socket)
    return router


@pytest.mark.parametrize(
    "make",
    [plain, only_declared, only_asked, another_than_declared, nested, starlette_route, mounted, web_socket],
)
def test_an_application_with_a_route_without_a_right_is_not_built(make: Any) -> None:
    with pytest.raises(RuntimeError, match="without a declared right"):
        build(make())


def test_an_application_whose_routes_all_have_rights_is_built() -> None:
    routes = Routes("test")
    for right in Right:
        routes.add("GET", f"/{right.name}", endpoint, right)
    build(routes.router)


def test_every_right_is_granted_to_some_role() -> None:
    assert set(GRANTS) == set(Right) - {Right.PUBLIC}
    assert all(ROOT.may(right) for right in Right)


def test_who_must_change_their_password_has_no_right_but_over_their_own_sign_in() -> None:
    identity = Identity(CredentialKind.SESSION, "a", Role.ADMIN, "id", must_change_password=True)
    assert identity.rights == (Right.ACCOUNT,)


def test_a_credential_has_the_lower_of_two_roles() -> None:
    assert lower_role(Role.ADMIN, Role.VIEWER) is lower_role(Role.VIEWER, Role.ADMIN) is Role.VIEWER
    assert lower_role(Role.OPERATOR, Role.ADMIN) is Role.OPERATOR
