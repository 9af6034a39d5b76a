"""/healthz, /readyz and /metrics of every service."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Readiness = Mapping[str, Callable[[], str | None]]
"""Name of a dependency -> function that gives the reason why it is not ready, or None."""


Details = Callable[[], Mapping[str, object]]
"""Further facts for whoever reads /readyz; they change nothing about its verdict."""


def ops_router(readiness: Readiness, details: Details | None = None) -> APIRouter:
    """The three endpoints an operator expects. They hold no secret and need no key; keep the port private."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Live: the event loop answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ready: 200, or 503 with a reason per dependency."""
        reasons = {name: reason for name, check in readiness.items() if (reason := check()) is not None}
        content: dict[str, object] = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        if details is not None:
            content["details"] = dict(details())
        return JSONResponse(content, status_code=503 if reasons else 200)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router


def ops_app(title: str, readiness: Readiness, details: Details | None = None) -> FastAPI:
    """The HTTP side of a service that has no other API."""
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(ops_router(readiness, details))
    return app
