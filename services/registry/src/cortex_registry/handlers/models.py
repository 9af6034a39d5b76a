"""What an administrator does with models: load, decide, save."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue, SecretStr

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ModelState
from cortex_contracts.rpc import LogsResultV1
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_kit.secrets import seal
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.model import (
    Model,
    changed_document,
    changed_fields,
    changes,
    check,
    created,
    deleted,
    describe,
    merge,
    new_document,
    updated,
    with_desire,
)
from cortex_registry.domain.specification import AnySpecification, parse_specification
from cortex_registry.handlers.observation import Observation, Observed
from cortex_registry.ports import Act, EngineLogs, Inspector, ModelRepository

log = get_logger()
CONFLICT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What this installation allows."""

    secret_key: SecretStr
    engines: tuple[str, ...]
    models_root: str | None


class ModelService:
    """Commands and queries on models. Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self,
        repository: ModelRepository,
        observation: Observation,
        inspector: Inspector,
        logs: EngineLogs,
        *,
        rules: ModelRules,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._observation = observation
        self._inspector = inspector
        self._logs = logs
        self._rules = rules
        self._clock = clock

    async def create(self, specification: AnySpecification, caller: Caller) -> Observed:
        """Store a new model, stopped."""
        specification = await self._checked(specification, inspect=True)
        document = new_document(
            specification, model_id=ModelId(uuid7()), hf_token_sealed=self._sealed(specification.hf_token)
        )
        now = self._clock.now()
        model = Model(document, created_at=now, updated_at=now, desired_since=now)
        await self._repository.add(model, self._act(caller, "model.create", document))
        log.info("model_created", model_id=model.id, served_model_name=document.served_model_name)
        return self._observation.observe(model)

    async def list_all(self) -> list[Observed]:
        return [self._observation.observe(model) for model in await self._repository.list_all()]

    async def get(self, reference: str) -> Observed:
        """By id, served name or alias; raises DomainError 404 `model_not_found`."""
        return self._observation.observe(await self._find(reference))

    async def update(self, reference: str, patch: Mapping[str, JsonValue], caller: Caller) -> Observed:
        """Replace the fields that `patch` names; null puts a default back."""
        for _ in range(CONFLICT_ATTEMPTS):
            model = await self._find(reference)
            old = model.document
            specification = parse_specification(merge(old, patch))
            specification = await self._checked(specification, inspect=specification.local_path != old.local_path)
            token = self._sealed(specification.hf_token) if "hf_token" in patch else old.hf_token_sealed
            document = changed_document(old, specification, hf_token_sealed=token)
            changed = changed_fields(old, document)
            if not changed:
                return self._observation.observe(model)
            after = replace(model, document=document, updated_at=self._clock.now())
            act = Act(caller, "model.update", updated(document, changed), changed, *changes(old, document))
            if await self._repository.replace(after, act):
                log.info("model_updated", model_id=model.id, changed=changed)
                return self._observation.observe(after)
        raise _too_busy()

    async def delete(self, reference: str, caller: Caller) -> None:
        """Forget the model; its files stay, its engines are stopped by the orchestrator."""
        for _ in range(CONFLICT_ATTEMPTS):
            model = await self._find(reference)
            act = Act(caller, "model.delete", deleted(model.document), before=describe(model.document))
            if await self._repository.remove(model, act):
                log.info("model_deleted", model_id=model.id)
                return
        raise _too_busy()

    async def start(self, reference: str, caller: Caller) -> Observed:
        """Ask the model to run. Harmless when it does; a failed one is tried again at once."""
        return await self._desire(reference, DesiredState.RUNNING, caller)

    async def stop(self, reference: str, caller: Caller) -> Observed:
        """Ask the model to stop. Harmless when it has."""
        return await self._desire(reference, DesiredState.STOPPED, caller)

    async def logs(self, reference: str, *, ordinal: int, tail: int) -> LogsResultV1:
        """The last lines of one replica's engine; raises DomainError 404 `replica_not_found`."""
        model = await self._find(reference)
        replicas = [status.replica for status in self._observation.replicas_of(model.id)]
        replica = next((replica for replica in replicas if replica.ordinal == ordinal), None)
        if replica is None:
            message = f"{model.document.served_model_name} has no replica {ordinal}: nothing has run yet."
            raise DomainError("replica_not_found", message, status=404)
        return await self._logs.tail(replica.node, model.id, ordinal, tail)

    async def _desire(self, reference: str, desired: DesiredState, caller: Caller) -> Observed:
        for _ in range(CONFLICT_ATTEMPTS):
            model = await self._find(reference)
            state = self._observation.observe(model).state
            failed = state is not None and state.state is ModelState.FAILED
            after = with_desire(model, desired, self._clock.now(), again=failed and desired is DesiredState.RUNNING)
            if after is None:
                return self._observation.observe(model)
            changed = changed_fields(model.document, after.document)
            action = "model.start" if desired is DesiredState.RUNNING else "model.stop"
            act = Act(
                caller, action, updated(after.document, changed), changed, *changes(model.document, after.document)
            )
            if await self._repository.replace(after, act):
                log.info("model_desired", model_id=model.id, desired=desired.value)
                return self._observation.observe(after)
        raise _too_busy()

    async def _find(self, reference: str) -> Model:
        model = await self._repository.find(reference)
        if model is None:
            message = f"There is no model {reference!r}. List them with GET /admin/models."
            raise DomainError("model_not_found", message, status=404)
        return model

    async def _checked(self, specification: AnySpecification, *, inspect: bool) -> AnySpecification:
        """The specification after the rules, and after the inspector has seen a GGUF that is new."""
        if specification.engine_type not in self._rules.engines:
            message = f"This installation does not offer the engine {specification.engine_type}."
            raise DomainError("engine_not_available", message, status=422)
        specification = check(specification, self._rules.models_root)
        if not inspect or specification.engine_type != EngineType.LLAMACPP.value or specification.local_path is None:
            return specification
        found = await self._inspector.inspect(specification.local_path)
        return specification.model_copy(update={"local_path": found.path})

    def _sealed(self, token: SecretStr | None) -> str | None:
        return seal(self._rules.secret_key, token.get_secret_value()) if token is not None else None

    def _act(self, caller: Caller, action: str, document: ModelDocumentV1) -> Act:
        return Act(caller, action, created(document), after=describe(document))


def _too_busy() -> DomainError:
    return DomainError("conflict", "The model was changed by others meanwhile. Try again.", status=409)
