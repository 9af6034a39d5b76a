"""What would become of a model: command line, memory, placement. Nothing is stored, pulled or started."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, EngineType
from cortex_contracts.estimates import EstimateRequestV1, EstimateResultV1
from cortex_contracts.operations import DryRunResultV1
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.devices import hardware_of
from cortex_registry.domain.legacy import translate
from cortex_registry.domain.model import Model, changed_document, merge, new_document
from cortex_registry.domain.specification import AnySpecification, parse_specification
from cortex_registry.domain.submission import Submission
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.models_editor import ModelEditor, require_own
from cortex_registry.handlers.models_runtime import Operations
from cortex_registry.handlers.observation import Observation


class Estimator(Protocol):
    """The inspector's estimates."""

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        """Memory a model takes.

        Raises:
            DomainError: 422 with the inspector's code.
            UnavailableError: `inspector_unavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class DryRun:
    """A part that cannot be had is None, and its reason says why."""

    document: ModelDocumentV1
    run: DryRunResultV1 | None
    run_reason: str
    estimate: EstimateResultV1 | None
    estimate_reason: str
    warnings: tuple[FieldWarning, ...]


class DryRuns:
    """Raises DomainError only for a specification that is refused."""

    def __init__(
        self, editor: ModelEditor, operations: Operations, estimator: Estimator, observation: Observation
    ) -> None:
        self._editor = editor
        self._operations = operations
        self._estimator = estimator
        self._observation = observation

    async def of_new(self, submission: Submission) -> DryRun:
        """For a model that is not stored."""
        self._editor.require_offered(submission.specification.engine_type)
        specification, warnings = await self._checked(submission.specification, None)
        sealed = self._editor.sealed(specification.hf_token)
        document = new_document(specification, model_id=ModelId(uuid7()), hf_token_sealed=sealed)
        return await self._run(document, (*submission.warnings, *warnings))

    async def of_stored(self, reference: str, patch: Mapping[str, JsonValue]) -> DryRun:
        """For a stored model, as it would be after `patch`."""
        model = await self._editor.find(reference)
        require_own(model)
        old = model.document
        translation = translate(patch, engine=old.engine_type.value, defaults=old.request_defaults)
        specification = parse_specification(merge(old, translation.fields))
        specification, warnings = await self._checked(specification, model)
        token = self._editor.kept_token(specification, translation.fields, old.hf_token_sealed)
        document = changed_document(old, specification, hf_token_sealed=token)
        return await self._run(document, (*translation.warnings, *warnings))

    async def _checked(
        self, specification: AnySpecification, present: Model | None
    ) -> tuple[AnySpecification, tuple[FieldWarning, ...]]:
        """The rules; a file that the inspector refuses, or cannot look at now, is a warning here."""
        checked = await self._editor.checked(specification, inspect=False)
        warnings = await self._editor.judged(checked, present=present)
        if present is not None and present.document.local_path == checked.local_path:
            return checked, warnings
        try:
            return await self._editor.checked(checked, inspect=True), warnings
        except (DomainError, UnavailableError) as error:
            return checked, (*warnings, FieldWarning(field="local_path", code=error.code, message=error.message))

    async def _run(self, document: ModelDocumentV1, warnings: tuple[FieldWarning, ...]) -> DryRun:
        document = document.model_copy(update={"desired_state": DesiredState.RUNNING})
        estimate, estimate_reason = await self._estimate(document)
        run, run_reason = None, ""
        try:
            run = await self._operations.dry_run(document, estimate)
        except (DomainError, UnavailableError) as error:
            run_reason = error.message
        return DryRun(document, run, run_reason, estimate, estimate_reason, warnings)

    async def _estimate(self, document: ModelDocumentV1) -> tuple[EstimateResultV1 | None, str]:
        if document.local_path is None:
            return None, "The model is not in the models folder: its memory is known once it was downloaded."
        hardware = hardware_of(self._observation.nodes, document.placement)
        request = EstimateRequestV1(
            path=document.local_path,
            engine_type=document.engine_type,
            llamacpp=document.llamacpp if document.engine_type is EngineType.LLAMACPP else None,
            vllm=document.vllm if document.engine_type is EngineType.VLLM else None,
            extra_args=document.extra_args,
            task=document.task,
            devices=hardware.devices,
            host=hardware.host,
        )
        try:
            return await self._estimator.estimate(request), ""
        except (DomainError, UnavailableError) as error:
            return None, error.message
