"""The HTTP application: guards, problem details, admin routes, operations endpoints."""

from collections.abc import Callable, Mapping, Sequence

from fastapi import APIRouter, FastAPI

from cortex_kit.ops import ops_router
from cortex_registry.entrypoints.access import check_rights
from cortex_registry.entrypoints.bodies import StrictBodies
from cortex_registry.entrypoints.description import DESCRIPTION, install_description
from cortex_registry.entrypoints.guards import ADMIN, Authentication, Authenticator, BodyLimit, RequestContext
from cortex_registry.entrypoints.idempotency import Idempotency, Store
from cortex_registry.entrypoints.problems import install_problem_handlers


def create_app(
    routers: Sequence[APIRouter],
    *,
    readiness: Mapping[str, Callable[[], str | None]],
    authenticators: Sequence[Authenticator],
    max_body_bytes: int,
    public: frozenset[tuple[str, str]] = frozenset(),
    idempotency: Store | None = None,
) -> FastAPI:
    """Build the application. Who asks is found out before routing, so that nothing below /admin can forget it.

    `public` names the (method, path) pairs that need no sign-in. `idempotency` keeps answers for repetition; without
    it an Idempotency-Key is ignored.

    Raises:
        RuntimeError: a route declares no right.
    """
    app = FastAPI(
        title="Cortex admin API",
        version="1",
        description=DESCRIPTION,
        openapi_url=f"{ADMIN}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    for router in routers:
        app.include_router(router, prefix=ADMIN)
    app.include_router(ops_router(readiness))
    install_problem_handlers(app)
    check_rights(app)
    install_description(app)
    if idempotency is not None:
        app.add_middleware(Idempotency, store=idempotency)
    app.add_middleware(StrictBodies)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(Authentication, authenticators=authenticators, public=public)
    app.add_middleware(RequestContext)
    return app
