"""/healthz, /readyz and /metrics of every service."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Readiness = Mapping[str, Callable[[], str | None]]
"""Name of a dependency -> function that gives the reason why it is not ready, or None."""


def ops_router(readiness: Readiness) -> APIRouter:
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
        return JSONResponse(
            {"status": "not ready" if reasons else "ready", "reasons": reasons}, status_code=503 if reasons else 200
        )

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router


def ops_app(title: str, readiness: Readiness) -> FastAPI:
    """The HTTP side of a service that has no other API."""
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(ops_router(readiness))
    return app
