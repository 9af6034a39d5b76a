"""The route of why."""

from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.why import WhyAnswer
from cortex_registry.handlers.why import WhyService


class WhyRoutes:
    """/admin/models/{reference}/why."""

    def __init__(self, service: WhyService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("models")
        routes.add("GET", "/models/{reference:path}/why", self.why, Right.MODELS_READ)
        return routes.router

    async def why(
        self,
        reference: str,
        version: Annotated[int | None, Query(ge=1, le=2**62, description="An older version of the model.")] = None,
        limit: Annotated[int, Query(ge=10, le=1000, description="Most events to tell of.")] = 200,
    ) -> WhyAnswer:
        """Why the model is in its state: who asked, what was decided and refused, what followed, as a tree of causes."""
        return WhyAnswer.of(await self._service.why(reference, version=version, limit=limit))
