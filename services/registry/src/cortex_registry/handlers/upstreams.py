"""What an administrator does with endpoints that others run, and what is seen of all endpoints."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue, SecretStr

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.enums import ReplicaState
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_kit.secrets import seal
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.model import Model, created, deleted, updated
from cortex_registry.domain.upstreams import (
    UpstreamSpecification,
    changed_upstream,
    changed_upstream_fields,
    describe_upstream,
    merge_upstream,
    new_upstream,
)
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.handlers.observation import Observation, Observed, ReplicaStatus
from cortex_registry.ports import Act, ModelRepository

log = get_logger()
CONFLICT_ATTEMPTS = 5
CONFLICT_PAUSE_S = 0.02
HISTORY = 50
DISCOVERED = "upstream.discover"
"""The action of a registration that came from the environment."""


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """One turn of an endpoint's health."""

    at: datetime
    healthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint, of ours or of others, and how it has been."""

    observed: Observed
    status: ReplicaStatus
    history: tuple[VerdictChange, ...]


class UpstreamRecords(Protocol):
    """What the database remembers of endpoints. Raises DatabaseUnavailableError."""

    async def history(self, replicas: Collection[ReplicaId], limit: int) -> Mapping[str, tuple[VerdictChange, ...]]:
        """The last changes of health by replica, newest first."""
        ...

    async def discovered(self) -> frozenset[ModelId]:
        """Models that were registered from the environment."""
        ...


class HealthProbes(Protocol):
    """The health service."""

    async def probe_now(self, model_id: ModelId | None) -> Sequence[ReplicaId]:
        """Ask for probes at once; returns what is being probed.

        Raises:
            UnavailableError: `health_unavailable`.
        """
        ...


class UpstreamService:
    """Commands and queries. Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self,
        repository: ModelRepository,
        observation: Observation,
        records: UpstreamRecords,
        probes: HealthProbes,
        *,
        secret_key: SecretStr,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._observation = observation
        self._records = records
        self._probes = probes
        self._secret_key = secret_key
        self._clock = clock

    async def create(
        self, specification: UpstreamSpecification, caller: Caller, *, action: str = "upstream.create"
    ) -> Observed:
        """Register, routed at once unless disabled."""
        model = new_upstream(specification, model_id=ModelId(uuid7()), now=self._clock.now(), seal=self._seal)
        act = Act(caller, action, created(model.document), after=describe_upstream(model.document))
        await self._repository.add(model, act)
        log.info("upstream_created", model_id=model.id, served_model_name=model.document.served_model_name)
        return self._observation.observe(model)

    async def get(self, reference: str) -> Observed:
        """By id, served name or alias; raises DomainError 404 `upstream_not_found`."""
        return self._observation.observe(await self._find(reference))

    async def list_external(self) -> list[Observed]:
        """Every model that others run."""
        models = await self._repository.list_all()
        return [self._observation.observe(model) for model in models if model.document.external]

    async def update(
        self, reference: str, patch: Mapping[str, JsonValue], caller: Caller, *, expected: Expected = None
    ) -> Observed:
        """Replace the fields that `patch` names; null puts a default back."""
        for attempt in range(CONFLICT_ATTEMPTS):
            model = await self._find(reference)
            require_version(expected, model.version)
            specification = merge_upstream(model.document, patch)
            after = changed_upstream(
                model, specification, now=self._clock.now(), seal=self._seal, rekeyed=_without_key(patch)
            )
            changed = changed_upstream_fields(model.document, after.document)
            if not changed:
                return self._observation.observe(model)
            act = Act(caller, "upstream.update", updated(after.document, changed), changed, *_moves(model, after))
            if await self._repository.replace(after, act):
                log.info("upstream_updated", model_id=model.id, changed=changed)
                return self._observation.observe(after)
            await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
        raise _too_busy()

    async def delete(self, reference: str, caller: Caller, *, expected: Expected = None) -> None:
        """Forget the upstream; what runs there goes on."""
        for attempt in range(CONFLICT_ATTEMPTS):
            model = await self._find(reference)
            require_version(expected, model.version)
            act = Act(caller, "upstream.delete", deleted(model.document), before=describe_upstream(model.document))
            if await self._repository.remove(model, act):
                log.info("upstream_deleted", model_id=model.id)
                return
            await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
        raise _too_busy()

    async def upstreams(self, reference: str | None = None) -> list[Upstream]:
        """Every endpoint that the gateway may route to; those of one external model when it is named."""
        models = await self._repository.list_all() if reference is None else [await self._find(reference)]
        seen = [
            (observed, status)
            for observed in map(self._observation.observe, models)
            for status in observed.replicas
            if status.replica.endpoint is not None and status.replica.state is ReplicaState.STARTED
        ]
        history = await self._records.history([status.replica.id for _, status in seen], HISTORY)
        return [Upstream(observed, status, history.get(status.replica.id, ())) for observed, status in seen]

    async def discovered(self) -> frozenset[ModelId]:
        """Models that were registered from the environment."""
        return await self._records.discovered()

    async def refresh(self, reference: str | None) -> Sequence[ReplicaId]:
        """Have one model, or all, probed now; raises UnavailableError `health_unavailable`."""
        model_id: ModelId | None = None
        if reference is not None:
            model = await self._repository.find(reference)
            if model is None:
                raise _unknown(reference)
            model_id = model.id
        return await self._probes.probe_now(model_id)

    async def _find(self, reference: str) -> Model:
        model = await self._repository.find(reference)
        if model is None or not model.document.external:
            raise _unknown(reference)
        return model

    def _seal(self, plain: str) -> str:
        return seal(self._secret_key, plain)


def _without_key(patch: Mapping[str, JsonValue]) -> frozenset[int]:
    """Positions of the endpoints whose key the patch takes away by saying null."""
    endpoints = patch.get("endpoints")
    if not isinstance(endpoints, list):
        return frozenset()
    return frozenset(
        index
        for index, endpoint in enumerate(endpoints)
        if isinstance(endpoint, dict) and "api_key" in endpoint and endpoint["api_key"] is None
    )


def _moves(before: Model, after: Model) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    was, now = describe_upstream(before.document), describe_upstream(after.document)
    fields = [field for field in now if was.get(field) != now[field]]
    return {field: was.get(field) for field in fields}, {field: now[field] for field in fields}


def _unknown(reference: str) -> DomainError:
    message = f"There is no upstream {reference[:200]!r}. List them with GET /admin/upstreams."
    return DomainError("upstream_not_found", message, status=404)


def _too_busy() -> DomainError:
    return DomainError("conflict", "The upstream was changed by others meanwhile. Try again.", status=409)
