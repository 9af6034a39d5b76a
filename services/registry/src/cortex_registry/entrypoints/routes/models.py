"""Routes of models: what is configured, and acts upon it."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import JsonValue

from cortex_contracts.rights import Right
from cortex_registry.domain.submission import Submission
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.schemas.models import (
    LlamaCppModelAnswer,
    ModelAnswer,
    ModelList,
    VllmModelAnswer,
    changed_answer,
    model_answer,
)
from cortex_registry.entrypoints.schemas.models_acts import CloneRequest, FreeFields
from cortex_registry.handlers.models import Changed, ModelService

ONE_MODEL = LlamaCppModelAnswer | VllmModelAnswer
ONE = "/models/{reference:path}"
"""A reference is an id, a served name or an alias; served names may hold slashes."""


class ModelRoutes:
    """/admin/models. The last of the routes below it, because a reference matches any path."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("models")
        write, operate = Right.MODELS_WRITE, Right.MODELS_OPERATE
        routes.add("POST", "/models", self.create, write, status_code=201, response_model=ONE_MODEL)
        routes.add("GET", "/models", self.list_all, Right.MODELS_READ)
        routes.add("POST", f"{ONE}/start", self.start, operate, response_model=ONE_MODEL)
        routes.add("POST", f"{ONE}/stop", self.stop, operate, response_model=ONE_MODEL)
        routes.add("POST", f"{ONE}/restart", self.restart, operate, response_model=ONE_MODEL)
        routes.add("POST", f"{ONE}/archive", self.archive, write, response_model=ONE_MODEL)
        routes.add("POST", f"{ONE}/unarchive", self.unarchive, write, response_model=ONE_MODEL)
        routes.add("POST", f"{ONE}/clone", self.clone, write, status_code=201, response_model=ONE_MODEL)
        routes.add("GET", ONE, self.get, Right.MODELS_READ, response_model=ONE_MODEL)
        routes.add("PATCH", ONE, self.update, write, response_model=ONE_MODEL)
        routes.add("DELETE", ONE, self.delete, write, status_code=204)
        return routes.router

    async def create(
        self, submission: Annotated[Submission, Body()], caller: CallerOf, response: Response
    ) -> ModelAnswer:
        """Create a model, stopped. `engine_type` is `vllm` unless given; the options of that engine sit beside.

        Fields of the first Cortex are understood; `warnings` says what became of them.
        """
        return _created(await self._service.create(submission, caller), response)

    async def list_all(
        self, archived: Annotated[bool, Query(description="With the archived ones.")] = False
    ) -> ModelList:
        """Every model with its observed state, oldest first."""
        return ModelList(items=[model_answer(one) for one in await self._service.list_all(archived=archived)])

    async def get(self, reference: str, response: Response) -> ModelAnswer:
        """One model with its observed state, archived or not."""
        observed = await self._service.get(reference)
        show_version(response, observed.model.version)
        return model_answer(observed)

    async def update(
        self,
        reference: str,
        patch: Annotated[FreeFields, Body()],
        caller: CallerOf,
        expected: IfMatch,
        response: Response,
    ) -> ModelAnswer:
        """Replace the given fields; null puts a default back. A running model is replaced where it must be."""
        return _changed(await self._service.update(reference, patch, caller, expected=expected), response)

    async def delete(self, reference: str, caller: CallerOf, expected: IfMatch) -> None:
        """Forget a model and stop its engines; its files stay."""
        await self._service.delete(reference, caller, expected=expected)

    async def start(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ModelAnswer:
        """Ask a model to run; watch `state` for what becomes of it. A failed one is tried again at once."""
        return _changed(await self._service.start(reference, caller, expected=expected), response)

    async def stop(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ModelAnswer:
        """Ask a model to stop."""
        return _changed(await self._service.stop(reference, caller, expected=expected), response)

    async def restart(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ModelAnswer:
        """Replace every replica by a new one; a stopped model is started."""
        return _changed(await self._service.restart(reference, caller, expected=expected), response)

    async def archive(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ModelAnswer:
        """Stop a model and put it away. Its names stay taken; lists leave it out unless asked."""
        return _changed(await self._service.archive(reference, caller, expected=expected), response)

    async def unarchive(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ModelAnswer:
        """Bring an archived model back, stopped."""
        return _changed(await self._service.unarchive(reference, caller, expected=expected), response)

    async def clone(self, reference: str, body: CloneRequest, caller: CallerOf, response: Response) -> ModelAnswer:
        """A new model, stopped, with this one's configuration, stored token included; other names, and what is given."""
        patch: dict[str, JsonValue] = body.model_dump(mode="json")
        return _created(await self._service.clone(reference, patch, caller), response)


def _created(changed: Changed, response: Response) -> ModelAnswer:
    response.headers["Location"] = f"/admin/models/{changed.observed.model.id}"
    return _changed(changed, response)


def _changed(changed: Changed, response: Response) -> ModelAnswer:
    show_version(response, changed.observed.model.version)
    return changed_answer(changed)
