"""Endpoints named in the environment (VLLM_GEN_URLS, ...): asked for their models, registered once, never taken away."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from cortex_contracts.enums import EngineType, Task
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry.domain.identity import SYSTEM
from cortex_registry.domain.model import Model
from cortex_registry.domain.upstreams import EndpointSpecification, UpstreamSpecification, name_from
from cortex_registry.handlers.upstreams import DISCOVERED, UpstreamService
from cortex_registry.ports import ModelRepository

log = get_logger()
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Announced:
    """An address in the environment, and what it is said to be."""

    variable: str
    url: str
    engine_type: EngineType
    task: Task


class Catalogue(Protocol):
    """Asks endpoints what they serve."""

    async def models_at(self, url: str) -> Sequence[str]:
        """Names of the models, by GET /v1/models. Raises TransientError when there is no such answer."""
        ...


class Leadership(Protocol):
    """A lease."""

    @property
    def held(self) -> bool: ...

    async def wait_held(self) -> None: ...


class Discovery:
    """Registers what the environment announces. One registry at a time does."""

    def __init__(
        self,
        announced: Sequence[Announced],
        catalogue: Catalogue,
        service: UpstreamService,
        repository: ModelRepository,
        lease: Leadership,
    ) -> None:
        self._announced = tuple(announced)
        self._catalogue = catalogue
        self._service = service
        self._repository = repository
        self._lease = lease

    async def run(self) -> None:
        """A task of the service: tries until every endpoint has said what it serves, then rests."""
        waiting = list(self._announced)
        pause, reported = FIRST_PAUSE_S, False
        while waiting or not reported:
            await self._lease.wait_held()
            reported = reported or await self._report_orphans()
            waiting = [announced for announced in waiting if not await self._register(announced)]
            if waiting or not reported:
                await asyncio.sleep(pause)
                pause = min(LAST_PAUSE_S, pause * 2)
        await asyncio.Event().wait()

    async def _register(self, announced: Announced) -> bool:
        """Whether there is nothing left to do for it."""
        if not self._lease.held:
            return False
        try:
            for offered in await self._catalogue.models_at(announced.url):
                await self._register_model(announced, offered)
        except TransientError as error:
            log.info("upstream_not_discovered", variable=announced.variable, url=announced.url, reason=str(error))
            return False
        except DomainError as error:
            log.error("upstream_refused", variable=announced.variable, url=announced.url, code=error.code)
        return True

    async def _register_model(self, announced: Announced, offered: str) -> None:
        models = await self._repository.list_all(archived=True)
        if any(_has(model, announced.url, offered) for model in models):
            return
        name = name_from(offered)
        if name is None:
            log.error("upstream_name_unusable", variable=announced.variable, url=announced.url)
            return
        endpoint: dict[str, JsonValue] = {"url": announced.url, "served_name": offered if offered != name else None}
        present = next((model for model in models if name in model.names), None)
        if present is None:
            specification = UpstreamSpecification(
                served_model_name=name,
                task=announced.task,
                engine_type=announced.engine_type,
                endpoints=(EndpointSpecification.model_validate(endpoint),),
            )
            await self._service.create(specification, SYSTEM, action=DISCOVERED)
        elif present.document.external and _alike(present, announced):
            known: list[JsonValue] = [
                {"url": one.url, "served_name": one.served_name} for one in present.document.external
            ]
            await self._service.update(present.id, {"endpoints": [*known, endpoint]}, SYSTEM)
        else:
            log.error("upstream_name_taken", variable=announced.variable, url=announced.url, name=name)

    async def _report_orphans(self) -> bool:
        """Say what was registered from the environment and is no longer there; it stays."""
        urls = {announced.url for announced in self._announced}
        try:
            discovered = await self._service.discovered()
            models = await self._repository.list_all()
        except TransientError:
            return False
        for model in models:
            if model.id in discovered and not any(endpoint.url in urls for endpoint in model.document.external):
                log.warning(
                    "upstream_not_in_environment",
                    model_id=model.id,
                    served_model_name=model.document.served_model_name,
                    hint="it stays registered: DELETE /admin/upstreams/<name> removes it",
                )
        return True


def _has(model: Model, url: str, offered: str) -> bool:
    return any(
        endpoint.url == url and offered in (endpoint.served_name, model.document.served_model_name)
        for endpoint in model.document.external
    )


def _alike(model: Model, announced: Announced) -> bool:
    return (model.document.engine_type, model.document.task) == (announced.engine_type, announced.task)
