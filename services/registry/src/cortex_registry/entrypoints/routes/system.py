"""Routes of the whole: hosts, readiness, GGUF headers."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_contracts.rpc import InspectResultV1
from cortex_registry.domain.paths import below_root
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.system import ComponentAnswer, CountsAnswer, NodeList, StatusAnswer
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.handlers.keys import KeyService
from cortex_registry.handlers.models import ModelService
from cortex_registry.handlers.observation import Observation
from cortex_registry.ports import Inspector


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
        routes = Routes("system")
        routes.add("GET", "/nodes", self.nodes, Right.SYSTEM_READ)
        routes.add("GET", "/status", self.status, Right.SYSTEM_READ)
        routes.add("GET", "/gguf/inspect", self.inspect, Right.SYSTEM_READ)
        return routes.router

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
