"""Routes of models."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import JsonValue

from cortex_contracts.rpc import LogsResultV1
from cortex_registry.domain.identity import Right
from cortex_registry.domain.specification import Specification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.schemas.models import (
    LlamaCppModelAnswer,
    ModelAnswer,
    ModelList,
    VllmModelAnswer,
    model_answer,
)
from cortex_registry.handlers.models import ModelService

ONE_MODEL = LlamaCppModelAnswer | VllmModelAnswer


class ModelRoutes:
    """/admin/models. A reference is an id, a served name or an alias; served names may hold slashes."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("models")
        one = "/models/{reference:path}"
        routes.add("POST", "/models", self.create, Right.MODELS_WRITE, status_code=201, response_model=ONE_MODEL)
        routes.add("GET", "/models", self.list_all, Right.MODELS_READ)
        routes.add("POST", f"{one}/start", self.start, Right.MODELS_OPERATE, response_model=ONE_MODEL)
        routes.add("POST", f"{one}/stop", self.stop, Right.MODELS_OPERATE, response_model=ONE_MODEL)
        routes.add("GET", f"{one}/logs", self.logs, Right.LOGS_READ)
        routes.add("GET", one, self.get, Right.MODELS_READ, response_model=ONE_MODEL)
        routes.add("PATCH", one, self.update, Right.MODELS_WRITE, response_model=ONE_MODEL)
        routes.add("DELETE", one, self.delete, Right.MODELS_WRITE, status_code=204)
        return routes.router

    async def create(self, specification: Specification, caller: CallerOf, response: Response) -> ModelAnswer:
        """Create a model, stopped. `engine_type` is `vllm` unless given; the options of that engine sit beside."""
        observed = await self._service.create(specification, caller)
        response.headers["Location"] = f"/admin/models/{observed.model.id}"
        return model_answer(observed)

    async def list_all(self) -> ModelList:
        """Every model with its observed state, oldest first."""
        return ModelList(items=[model_answer(observed) for observed in await self._service.list_all()])

    async def get(self, reference: str) -> ModelAnswer:
        """One model with its observed state."""
        return model_answer(await self._service.get(reference))

    async def update(
        self, reference: str, patch: Annotated[dict[str, JsonValue], Body()], caller: CallerOf
    ) -> ModelAnswer:
        """Replace the given fields; null puts a default back. A running model is replaced where it must be."""
        return model_answer(await self._service.update(reference, patch, caller))

    async def delete(self, reference: str, caller: CallerOf) -> None:
        """Forget a model and stop its engines; its files stay."""
        await self._service.delete(reference, caller)

    async def start(self, reference: str, caller: CallerOf) -> ModelAnswer:
        """Ask a model to run; watch `state` for what becomes of it."""
        return model_answer(await self._service.start(reference, caller))

    async def stop(self, reference: str, caller: CallerOf) -> ModelAnswer:
        """Ask a model to stop."""
        return model_answer(await self._service.stop(reference, caller))

    async def logs(
        self,
        reference: str,
        tail: Annotated[int, Query(ge=1, le=5000)] = 200,
        ordinal: Annotated[int, Query(ge=0)] = 0,
    ) -> LogsResultV1:
        """The last lines of one replica's engine."""
        return await self._service.logs(reference, ordinal=ordinal, tail=tail)
