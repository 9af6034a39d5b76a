"""Routes of the admin API: parse, call a handler, answer."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import JsonValue

from cortex_contracts.base import KeyId, UtcDatetime
from cortex_contracts.rpc import InspectResultV1, LogsResultV1
from cortex_registry.domain.keys import KeySpecification
from cortex_registry.domain.paths import below_root
from cortex_registry.domain.specification import Specification
from cortex_registry.domain.usage import UsageFilter
from cortex_registry.entrypoints.guards import REQUEST_ID
from cortex_registry.entrypoints.schemas import (
    ComponentAnswer,
    CountsAnswer,
    KeyAnswer,
    KeyList,
    LlamaCppModelAnswer,
    ModelAnswer,
    ModelList,
    NewKeyAnswer,
    NodeList,
    StatusAnswer,
    UsageAnswer,
    VllmModelAnswer,
    key_fields,
    model_answer,
)
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.handlers.keys import KeyService
from cortex_registry.handlers.models import Caller, ModelService
from cortex_registry.handlers.observation import Observation
from cortex_registry.ports import Inspector, UsageRepository


def caller_of(request: Request) -> Caller:
    """Whoever holds the admin token."""
    return Caller("admin", request.scope.get(REQUEST_ID))


CallerOf = Annotated[Caller, Depends(caller_of)]
ONE_MODEL = LlamaCppModelAnswer | VllmModelAnswer


class ModelRoutes:
    """/admin/models. A reference is an id, a served name or an alias; served names may hold slashes."""

    def __init__(self, service: ModelService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        router = APIRouter(tags=["models"])
        one = "/models/{reference:path}"
        router.add_api_route("/models", self.create, methods=["POST"], status_code=201, response_model=ONE_MODEL)
        router.add_api_route("/models", self.list_all, methods=["GET"])
        router.add_api_route(f"{one}/start", self.start, methods=["POST"], response_model=ONE_MODEL)
        router.add_api_route(f"{one}/stop", self.stop, methods=["POST"], response_model=ONE_MODEL)
        router.add_api_route(f"{one}/logs", self.logs, methods=["GET"])
        router.add_api_route(one, self.get, methods=["GET"], response_model=ONE_MODEL)
        router.add_api_route(one, self.update, methods=["PATCH"], response_model=ONE_MODEL)
        router.add_api_route(one, self.delete, methods=["DELETE"], status_code=204)
        return router

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


class KeyRoutes:
    """/admin/keys."""

    def __init__(self, service: KeyService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        router = APIRouter(tags=["keys"])
        router.add_api_route("/keys", self.create, methods=["POST"], status_code=201)
        router.add_api_route("/keys", self.list_all, methods=["GET"])
        router.add_api_route("/keys/{key_id}", self.revoke, methods=["DELETE"], status_code=204)
        return router

    async def create(self, specification: KeySpecification, caller: CallerOf, response: Response) -> NewKeyAnswer:
        """Make a key. `key` is shown here and never again."""
        key, plain = await self._service.create(specification, caller)
        response.headers["Cache-Control"] = "no-store"
        return NewKeyAnswer(**key_fields(key), key=plain)

    async def list_all(self) -> KeyList:
        """Every key, revoked ones included, oldest first."""
        return KeyList(items=[KeyAnswer(**key_fields(key)) for key in await self._service.list_all()])

    async def revoke(self, key_id: str, caller: CallerOf) -> None:
        """Revoke a key for ever."""
        await self._service.revoke(KeyId(key_id), caller)


class UsageRoutes:
    """/admin/usage."""

    def __init__(self, usage: UsageRepository) -> None:
        self._usage = usage

    def router(self) -> APIRouter:
        router = APIRouter(tags=["usage"])
        router.add_api_route("/usage", self.report, methods=["GET"])
        return router

    async def report(
        self,
        model: Annotated[str | None, Query(max_length=256)] = None,
        key_id: Annotated[str | None, Query(max_length=64)] = None,
        since: UtcDatetime | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> UsageAnswer:
        """The newest records and sums. `model` is the name clients asked for, or a model's id."""
        wanted = UsageFilter(model=model, key_id=key_id, since=since, limit=limit)
        return UsageAnswer.of(await self._usage.report(wanted))


@dataclass(frozen=True, slots=True)
class SystemSources:
    """What the overview is made of."""

    models: ModelService
    keys: KeyService
    observation: Observation
    inspector: Inspector
    readiness: Mapping[str, Callable[[], str | None]]
    models_root: str | None


class SystemRoutes:
    """/admin/nodes, /admin/status, /admin/gguf."""

    def __init__(self, sources: SystemSources) -> None:
        self._sources = sources

    def router(self) -> APIRouter:
        router = APIRouter(tags=["system"])
        router.add_api_route("/nodes", self.nodes, methods=["GET"])
        router.add_api_route("/status", self.status, methods=["GET"])
        router.add_api_route("/gguf/inspect", self.inspect, methods=["GET"])
        return router

    async def nodes(self) -> NodeList:
        """Hosts that engines run on, as their orchestrators report them."""
        return NodeList(items=list(self._sources.observation.nodes))

    async def inspect(self, path: Annotated[str, Query(min_length=1, max_length=1024)]) -> InspectResultV1:
        """What the header of a GGUF file below the models directory says."""
        return await self._sources.inspector.inspect(below_root(path, "path", self._sources.models_root))

    async def status(self) -> StatusAnswer:
        """Readiness of what the registry needs, and counts; answers with Postgres or NATS away, too."""
        components = {name: self._component(check()) for name, check in self._sources.readiness.items()}
        return StatusAnswer(
            ready=all(component.ready for component in components.values()),
            components=components,
            counts=await self._counts(),
        )

    async def _counts(self) -> CountsAnswer:
        replicas = Counter(replica.state.value for replica in self._sources.observation.replicas)
        nodes = len(self._sources.observation.nodes)
        try:
            models = await self._sources.models.list_all()
            keys = [key for key in await self._sources.keys.list_all() if key.revoked_at is None]
        except DatabaseUnavailableError:
            return CountsAnswer(
                models=None, models_by_state=None, keys=None, replicas_by_state=dict(replicas), nodes=nodes
            )
        states = Counter(observed.state.state.value for observed in models if observed.state is not None)
        return CountsAnswer(
            models=len(models),
            models_by_state=dict(states),
            keys=len(keys),
            replicas_by_state=dict(replicas),
            nodes=nodes,
        )

    @staticmethod
    def _component(reason: str | None) -> ComponentAnswer:
        return ComponentAnswer(ready=reason is None, reason=reason)
