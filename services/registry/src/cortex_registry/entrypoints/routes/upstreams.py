"""Routes of upstreams, and of the routing registry of old."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator

from cortex_contracts.enums import EngineType, Task
from cortex_contracts.rights import Right
from cortex_registry.domain.specification import ServedName
from cortex_registry.domain.upstream_urls import MAX_URL, base_url
from cortex_registry.domain.upstreams import EndpointSpecification, UpstreamSpecification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.schemas.upstreams import (
    ExternalAnswer,
    OldEntry,
    RefreshAnswer,
    UpstreamAnswer,
    UpstreamList,
)
from cortex_registry.handlers.observation import Observed
from cortex_registry.handlers.upstreams import UpstreamService


class OldRegistration(BaseModel):
    """The body that the routing registry of old took."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"served_name": "qwen3-32b", "url": "http://10.0.0.5:8000", "task": "generate"}]
        },
    )

    served_name: ServedName
    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]
    task: Task = Task.GENERATE

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        return base_url(value)


class RefreshRequest(BaseModel):
    """Which model to probe."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "qwen3-32b"}]})

    model: str | None = Field(default=None, min_length=1, max_length=256, description="id or name; all unless given")


class DoneAnswer(BaseModel):
    """The answer that scripts of old expect."""

    status: Literal["ok"] = "ok"


class UpstreamRoutes:
    """/admin/upstreams, /admin/models/registry."""

    def __init__(self, service: UpstreamService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("upstreams")
        one = "/upstreams/{reference:path}"
        routes.add("POST", "/upstreams", self.create, Right.UPSTREAMS_WRITE, status_code=201)
        routes.add("GET", "/upstreams", self.list_all, Right.MODELS_READ)
        routes.add("POST", "/upstreams/refresh-health", self.refresh, Right.MODELS_OPERATE)
        routes.add("GET", one, self.get, Right.MODELS_READ)
        routes.add("PATCH", one, self.update, Right.UPSTREAMS_WRITE)
        routes.add("DELETE", one, self.delete, Right.UPSTREAMS_WRITE, status_code=204)
        old = "/models/registry"
        routes.add("GET", old, self.old_list, Right.MODELS_READ, deprecated=True)
        routes.add("POST", old, self.old_register, Right.UPSTREAMS_WRITE, deprecated=True)
        routes.add("DELETE", f"{old}/{{reference:path}}", self.old_remove, Right.UPSTREAMS_WRITE, deprecated=True)
        return routes.router

    async def create(
        self, specification: UpstreamSpecification, caller: CallerOf, response: Response
    ) -> ExternalAnswer:
        """Register a model that others run: Cortex routes requests to it and watches its health."""
        observed = await self._service.create(specification, caller)
        response.headers["Location"] = f"/admin/upstreams/{observed.model.id}"
        return _shown(observed, response)

    async def list_all(
        self,
        external: Annotated[bool | None, Query(description="only those that others run, or only ours")] = None,
    ) -> UpstreamList:
        """Every endpoint that the gateway may route to, with its health, history and load."""
        answers = [UpstreamAnswer.of(upstream) for upstream in await self._service.upstreams()]
        return UpstreamList(items=[answer for answer in answers if external in (None, answer.external)])

    async def get(self, reference: str, response: Response) -> ExternalAnswer:
        """One model that others run."""
        return _shown(await self._service.get(reference), response)

    async def update(
        self,
        reference: str,
        patch: Annotated[dict[str, JsonValue], Body(examples=[{"enabled": False}])],
        caller: CallerOf,
        expected: IfMatch,
        response: Response,
    ) -> ExternalAnswer:
        """Replace the given fields; null puts a default back. An endpoint at the same URL keeps its key."""
        return _shown(await self._service.update(reference, patch, caller, expected=expected), response)

    async def delete(self, reference: str, caller: CallerOf, expected: IfMatch) -> None:
        """Forget an upstream; what runs there goes on."""
        await self._service.delete(reference, caller, expected=expected)

    async def refresh(self, request: RefreshRequest | None = None) -> RefreshAnswer:
        """Have endpoints probed now; their verdicts follow."""
        return RefreshAnswer(replicas=list(await self._service.refresh(request.model if request is not None else None)))

    async def old_list(self) -> dict[str, OldEntry]:
        """External models by name: the first endpoint and the task of each."""
        return {
            observed.model.document.served_model_name: OldEntry(
                url=observed.model.document.external[0].url, task=observed.model.document.task
            )
            for observed in await self._service.list_external()
        }

    async def old_register(self, entry: OldRegistration, caller: CallerOf) -> DoneAnswer:
        """Register, or move, an external model with one endpoint."""
        known = {observed.model.document.served_model_name for observed in await self._service.list_external()}
        if entry.served_name in known:
            patch: dict[str, JsonValue] = {"endpoints": [{"url": entry.url}], "task": entry.task.value}
            await self._service.update(entry.served_name, patch, caller)
            return DoneAnswer()
        specification = UpstreamSpecification(
            served_model_name=entry.served_name,
            task=entry.task,
            engine_type=EngineType.VLLM,
            endpoints=(EndpointSpecification(url=entry.url),),
        )
        await self._service.create(specification, caller)
        return DoneAnswer()

    async def old_remove(self, reference: str, caller: CallerOf) -> DoneAnswer:
        """Forget an external model."""
        await self._service.delete(reference, caller)
        return DoneAnswer()


def _shown(observed: Observed, response: Response) -> ExternalAnswer:
    show_version(response, observed.model.version)
    return ExternalAnswer.of(observed)
