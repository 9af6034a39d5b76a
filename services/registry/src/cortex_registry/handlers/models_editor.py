"""What every act on models shares: find, check, seal, and change while others change too."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue, SecretStr

from cortex_contracts.enums import EngineType
from cortex_contracts.events import Event
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.secrets import seal
from cortex_registry.domain.advice import FieldWarning, advise, refuse_fallback_cycle
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.model import Model, changed_fields, changes, check
from cortex_registry.domain.specification import AnySpecification
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.ports import Act, Inspector, ModelRepository

CONFLICT_ATTEMPTS = 5
CONFLICT_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What this installation allows."""

    secret_key: SecretStr
    engines: tuple[str, ...]
    """Engines that models may be made for."""
    models_root: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """The next version of a model, and what is told of it."""

    after: Model
    act: Act


class ModelEditor:
    """Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(self, repository: ModelRepository, inspector: Inspector, *, rules: ModelRules, clock: Clock) -> None:
        self.repository = repository
        self.rules = rules
        self.clock = clock
        self._inspector = inspector

    async def find(self, reference: str) -> Model:
        """By id, served name or alias, archived ones too; raises DomainError 404 `model_not_found`."""
        model = await self.repository.find(reference)
        if model is None:
            message = f"There is no model {reference[:200]!r}. List them with GET /admin/models."
            raise DomainError("model_not_found", message, status=404)
        return model

    async def change(
        self, reference: str, decide: Callable[[Model], Awaitable[Change | None]], *, expected: Expected = None
    ) -> tuple[Model, Change | None]:
        """Store what `decide` makes of the present version; when another change came first, decide anew.

        Returns the model as it is now, and the change, None when `decide` found nothing to change.

        Raises:
            DomainError: 404; 412 `precondition_failed`; 409 `conflict` when it never was the first.
        """
        for attempt in range(CONFLICT_ATTEMPTS):
            model = await self.find(reference)
            require_version(expected, model.version)
            change = await decide(model)
            if change is None:
                return model, None
            if await self.repository.replace(change.after, change.act):
                return change.after, change
            await asyncio.sleep(CONFLICT_PAUSE_S * attempt)
        raise too_busy()

    def require_offered(self, engine: str) -> None:
        """Refuse a new model of an engine that is switched off.

        Raises:
            DomainError: 422 `engine_not_available` with the reason.
        """
        if engine in self.rules.engines:
            return
        offered = ", ".join(self.rules.engines) or "none"
        message = (
            f"New models of the engine {engine} are switched off here (CORTEX_ENGINES allows: {offered}); "
            "models that exist keep running."
        )
        errors = [{"field": "engine_type", "code": "engine_not_available", "message": message}]
        raise DomainError("engine_not_available", message, status=422, details={"errors": errors})

    async def checked(self, specification: AnySpecification, *, inspect: bool) -> AnySpecification:
        """The specification after the rules, and after the inspector has seen a GGUF that is new."""
        specification = check(specification, self.rules.models_root)
        if not inspect or specification.engine_type != EngineType.LLAMACPP.value or specification.local_path is None:
            return specification
        found = await self._inspector.inspect(specification.local_path)
        return specification.model_copy(update={"local_path": found.path})

    async def judged(
        self, specification: AnySpecification, *, present: Model | None = None, coming: Sequence[AnySpecification] = ()
    ) -> tuple[FieldWarning, ...]:
        """Warnings, as far as they depend on the other models.

        Args:
            specification: of the model in question.
            present: the stored model that it replaces.
            coming: specifications that will be stored with it.

        Raises:
            DomainError: 422 `fallback_cycle`.
        """
        if not specification.fallbacks:
            return advise(specification, ())
        others: dict[str, Sequence[str]] = {}
        for model in await self.repository.list_all(archived=True):
            if present is None or model.id != present.id:
                others |= dict.fromkeys(model.names, model.document.fallbacks)
        for one in coming:
            others |= dict.fromkeys((one.served_name, *one.aliases), one.fallbacks)
        own = (specification.served_name, *specification.aliases)
        refuse_fallback_cycle(own, specification.fallbacks, others)
        return advise(specification, others)

    def sealed(self, token: SecretStr | None) -> str | None:
        """A token as it is stored."""
        return seal(self.rules.secret_key, token.get_secret_value()) if token is not None else None

    def kept_token(
        self, specification: AnySpecification, patch: Mapping[str, JsonValue], present: str | None
    ) -> str | None:
        """The sealed token after a patch."""
        return self.sealed(specification.hf_token) if "hf_token" in patch else present


def too_busy() -> DomainError:
    """409 for a change that always came second."""
    return DomainError("conflict", "The model was changed by others meanwhile. Try again.", status=409)


def require_own(model: Model) -> None:
    """Raises DomainError 409 `model_external` for a model that Cortex does not run."""
    if model.document.external:
        name = model.document.served_model_name
        message = f"{name} is run by others: it is changed with /admin/upstreams/{name}."
        raise DomainError("model_external", message, status=409)


def require_not_archived(model: Model) -> None:
    """Raises DomainError 409 `model_archived`."""
    if model.archived_at is not None:
        name = model.document.served_model_name
        message = f"{name} is archived. Bring it back first: POST /admin/models/{name}/unarchive."
        raise DomainError("model_archived", message, status=409)


def act_of(caller: Caller, action: str, event: Event, versions: tuple[Model, Model]) -> Act:
    """What is told of a change from one version to the next."""
    before, after = versions
    fields = changed_fields(before.document, after.document)
    was, now = changes(before.document, after.document)
    if (before.archived_at is None) != (after.archived_at is None):
        fields = ("archived", *fields)
        was["archived"], now["archived"] = before.archived_at is not None, after.archived_at is not None
    return Act(caller, action, event, fields, was, now)
