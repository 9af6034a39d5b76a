"""What an administrator does with models: load, decide, save."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, ModelState
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.legacy import translate
from cortex_registry.domain.model import (
    Model,
    archived,
    changed_document,
    changed_fields,
    created,
    deleted,
    describe,
    merge,
    new_document,
    put_away,
    restarted,
    unarchived,
    updated,
    with_desire,
)
from cortex_registry.domain.specification import AnySpecification, parse_specification
from cortex_registry.domain.submission import Submission
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.handlers.models_editor import (
    CONFLICT_ATTEMPTS,
    Change,
    ModelEditor,
    ModelRules,
    act_of,
    require_not_archived,
    require_own,
    too_busy,
)
from cortex_registry.handlers.observation import Observation, Observed
from cortex_registry.ports import Act

__all__ = ["Changed", "ModelRules", "ModelService"]

log = get_logger()


@dataclass(frozen=True, slots=True)
class Changed:
    """A model after an act. `fields` names what the act changed; empty when there was nothing to change."""

    observed: Observed
    warnings: tuple[FieldWarning, ...] = ()
    fields: tuple[str, ...] = ()


class ModelService:
    """Commands and queries on models. Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(self, editor: ModelEditor, observation: Observation) -> None:
        self._editor = editor
        self._observation = observation

    async def create(self, submission: Submission, caller: Caller) -> Changed:
        """Store a new model, stopped.

        Raises:
            DomainError: 422; 409 `name_taken`.
        """
        return await self._add(submission, caller, "model.create")

    async def clone(self, reference: str, patch: Mapping[str, JsonValue], caller: Caller) -> Changed:
        """A new model, stopped, like another one but for `patch`, which names it; the stored token comes along."""
        source = await self._editor.find(reference)
        require_own(source)
        translation = translate(
            patch, engine=source.document.engine_type.value, defaults=source.document.request_defaults
        )
        fields = {"served_model_name": None, "aliases": None, **translation.fields}
        specification = parse_specification(merge(source.document, fields))
        token = None if "hf_token" in fields else source.document.hf_token_sealed
        return await self._add(Submission(specification, translation.warnings), caller, "model.clone", token=token)

    async def list_all(self, *, archived: bool = False) -> list[Observed]:
        """Oldest first; with `archived` the archived ones too."""
        models = await self._editor.repository.list_all(archived=archived)
        return [self._observation.observe(model) for model in models]

    async def get(self, reference: str) -> Observed:
        """By id, served name or alias; raises DomainError 404 `model_not_found`."""
        return self._observation.observe(await self._editor.find(reference))

    async def update(
        self, reference: str, patch: Mapping[str, JsonValue], caller: Caller, *, expected: Expected = None
    ) -> Changed:
        """Replace the fields that `patch` names; null puts a default back."""
        warnings: tuple[FieldWarning, ...] = ()

        async def decide(model: Model) -> Change | None:
            nonlocal warnings
            require_own(model)
            old = model.document
            translation = translate(patch, engine=old.engine_type.value, defaults=old.request_defaults)
            specification = parse_specification(merge(old, translation.fields))
            specification = await self._editor.checked(
                specification, inspect=specification.local_path != old.local_path
            )
            warnings = (*translation.warnings, *await self._editor.judged(specification, present=model))
            token = self._editor.kept_token(specification, translation.fields, old.hf_token_sealed)
            return self._replaced(model, changed_document(old, specification, hf_token_sealed=token), caller)

        model, change = await self._editor.change(reference, decide, expected=expected)
        return self._told(model, change, warnings)

    async def delete(self, reference: str, caller: Caller, *, expected: Expected = None) -> None:
        """Forget the model; its files stay, its engines are stopped by the orchestrator."""
        for _ in range(CONFLICT_ATTEMPTS):
            model = await self._editor.find(reference)
            require_version(expected, model.version)
            act = Act(caller, "model.delete", deleted(model.document), before=describe(model.document))
            if await self._editor.repository.remove(model, act):
                log.info("model_deleted", model_id=model.id)
                return
        raise too_busy()

    async def archive(self, reference: str, caller: Caller, *, expected: Expected = None) -> Changed:
        """Stop the model and put it away: hidden, run by nobody, its names still taken. Harmless when it is."""

        async def decide(model: Model) -> Change | None:
            if model.archived_at is not None:
                return None
            after = archived(model, self._editor.clock.now())
            return Change(after, act_of(caller, "model.archive", put_away(after.document), (model, after)))

        return self._told(*await self._editor.change(reference, decide, expected=expected))

    async def unarchive(self, reference: str, caller: Caller, *, expected: Expected = None) -> Changed:
        """Bring an archived model back, stopped. Harmless when it is not archived."""

        async def decide(model: Model) -> Change | None:
            if model.archived_at is None:
                return None
            after = unarchived(model, self._editor.clock.now())
            event = updated(after.document, ("archived",))
            return Change(after, act_of(caller, "model.unarchive", event, (model, after)))

        return self._told(*await self._editor.change(reference, decide, expected=expected))

    async def start(self, reference: str, caller: Caller, *, expected: Expected = None) -> Changed:
        """Ask the model to run. Harmless when it does; a failed one is tried again at once."""
        return await self._desire(reference, DesiredState.RUNNING, caller, expected)

    async def stop(self, reference: str, caller: Caller, *, expected: Expected = None) -> Changed:
        """Ask the model to stop. Harmless when it has."""
        return await self._desire(reference, DesiredState.STOPPED, caller, expected)

    async def restart(self, reference: str, caller: Caller, *, expected: Expected = None) -> Changed:
        """Replace every replica by a new one; a stopped model is started."""

        async def decide(model: Model) -> Change | None:
            require_not_archived(model)
            return self._updated(model, restarted(model, self._editor.clock.now()), caller, "model.restart")

        return self._told(*await self._editor.change(reference, decide, expected=expected))

    async def _desire(self, reference: str, desired: DesiredState, caller: Caller, expected: Expected) -> Changed:
        async def decide(model: Model) -> Change | None:
            if desired is DesiredState.RUNNING:
                require_not_archived(model)
            state = self._observation.observe(model).state
            again = desired is DesiredState.RUNNING and state is not None and state.state is ModelState.FAILED
            after = with_desire(model, desired, self._editor.clock.now(), again=again)
            if after is None:
                return None
            action = "model.start" if desired is DesiredState.RUNNING else "model.stop"
            return self._updated(model, after, caller, action)

        return self._told(*await self._editor.change(reference, decide, expected=expected))

    async def _add(self, submission: Submission, caller: Caller, action: str, *, token: str | None = None) -> Changed:
        specification = submission.specification
        self._editor.require_offered(specification.engine_type)
        specification = await self._editor.checked(specification, inspect=True)
        warnings = (*submission.warnings, *await self._editor.judged(specification))
        model = self.new_model(specification, token)
        act = Act(caller, action, created(model.document), after=describe(model.document))
        await self._editor.repository.add(model, act)
        log.info("model_created", model_id=model.id, served_model_name=model.document.served_model_name)
        return Changed(self._observation.observe(model), warnings)

    def new_model(self, specification: AnySpecification, token: str | None = None) -> Model:
        """A model that is not stored yet; `token` is a sealed one that it takes over."""
        sealed = self._editor.sealed(specification.hf_token) or token
        document = new_document(specification, model_id=ModelId(uuid7()), hf_token_sealed=sealed)
        now = self._editor.clock.now()
        return Model(document, created_at=now, updated_at=now, desired_since=now)

    def _replaced(self, model: Model, document: ModelDocumentV1, caller: Caller) -> Change | None:
        changed = changed_fields(model.document, document)
        if not changed:
            return None
        after = replace(model, document=document, updated_at=self._editor.clock.now())
        return self._updated(model, after, caller, "model.update")

    def _updated(self, before: Model, after: Model, caller: Caller, action: str) -> Change:
        event = updated(after.document, changed_fields(before.document, after.document))
        return Change(after, act_of(caller, action, event, (before, after)))

    def _told(self, model: Model, change: Change | None, warnings: tuple[FieldWarning, ...] = ()) -> Changed:
        if change is None:
            return Changed(self._observation.observe(model), warnings)
        log.info("model_changed", model_id=model.id, action=change.act.action, changed=change.act.changed)
        return Changed(self._observation.observe(model), warnings, change.act.changed)
