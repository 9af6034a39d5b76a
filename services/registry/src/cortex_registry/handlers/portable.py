"""Models out to a file and in from one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from cortex_contracts.enums import DesiredState
from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.model import Model, changed_document, changed_fields, created, describe, updated
from cortex_registry.domain.portable import (
    FORMAT,
    VERSION,
    Conflict,
    Fitted,
    Fitting,
    Outcome,
    Portable,
    PortableFile,
    export,
    take_apart,
)
from cortex_registry.domain.specification import AnySpecification
from cortex_registry.domain.submission import Submission, parse_submission
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.models import ModelService
from cortex_registry.handlers.models_editor import CONFLICT_ATTEMPTS, ModelEditor, act_of, require_own, too_busy
from cortex_registry.ports import Act

log = get_logger()
PREPARE_S = 120.0
"""Longest time for looking at everything a file names."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """`partial` imports what can be; else one failure stops all. `start` takes the desired state of the file."""

    conflict: Conflict = Conflict.ERROR
    dry_run: bool = False
    partial: bool = False
    start: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What became, or would become, of one model."""

    index: int
    outcome: Outcome
    name: str
    served_model_name: str
    id: str | None = None
    code: str = ""
    message: str = ""
    warnings: tuple[FieldWarning, ...] = ()
    missing_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportResult:
    """`applied` is False for a dry run, and when a failure stopped all."""

    applied: bool
    items: tuple[Imported, ...]


@dataclass(slots=True)
class _Job:
    """One model on its way in; `result` changes from promise to fact."""

    portable: Portable
    result: Imported
    fitted: Fitted | None = None
    model: Model | None = None
    act: Act | None = field(default=None)

    def fail(self, error: DomainError) -> None:
        details = error.details.get("errors")
        errors = cast("list[Mapping[str, str]]", details) if isinstance(details, list) else []
        fields = [f"{one['field']}: {one['message']}" for one in errors]
        message = "; ".join(fields[:5]) or error.message
        self.model = self.act = None
        self.result = replace(self.result, outcome=Outcome.FAILED, id=None, code=error.code, message=message)


class PortableService:
    """Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(self, editor: ModelEditor, service: ModelService) -> None:
        self._editor = editor
        self._service = service

    async def export_one(self, reference: str) -> PortableFile:
        """One model; raises DomainError 409 `model_external` for one that others run."""
        model = await self._editor.find(reference)
        require_own(model)
        return self._file([model])

    async def export_all(self) -> PortableFile | None:
        """Every model that Cortex runs, archived ones too; None when there is none."""
        models = [
            model for model in await self._editor.repository.list_all(archived=True) if not model.document.external
        ]
        return self._file(models) if models else None

    async def import_all(self, file: PortableFile, options: ImportOptions, caller: Caller) -> ImportResult:
        """Bring the models of a file in."""
        for _ in range(CONFLICT_ATTEMPTS):
            try:
                async with asyncio.timeout(PREPARE_S):
                    jobs = await self._prepare(file, options, caller)
            except TimeoutError as error:
                message = f"The models could not be checked within {PREPARE_S:g} s. Import fewer at once."
                raise UnavailableError("import_too_slow", message) from error
            failed = any(job.result.outcome is Outcome.FAILED for job in jobs)
            if options.dry_run or (failed and not options.partial):
                return ImportResult(False, tuple(job.result for job in jobs))
            if options.partial:
                for job in jobs:
                    await self._store_alone(job)
            elif not await self._store_together(jobs):
                continue
            log.info("models_imported", count=sum(job.model is not None for job in jobs))
            return ImportResult(True, tuple(job.result for job in jobs))
        raise too_busy()

    def _file(self, models: Sequence[Model]) -> PortableFile:
        return PortableFile(
            format=FORMAT,
            version=VERSION,
            exported_at=self._editor.clock.now(),
            models=tuple(export(model) for model in models),
        )

    async def _prepare(self, file: PortableFile, options: ImportOptions, caller: Caller) -> list[_Job]:
        fitting = Fitting(await self._editor.repository.list_all(archived=True), options.conflict)
        jobs: list[_Job] = []
        for index, entry in enumerate(file.models):
            portable = take_apart(entry)
            name, served = str(entry.get("name"))[:128], str(entry.get("served_model_name") or "")[:128]
            result = Imported(index, Outcome.FAILED, name, served, missing_secrets=portable.missing_secrets)
            job = _Job(portable, result)
            jobs.append(job)
            try:
                await self._fit(job, fitting)
            except DomainError as error:
                job.fail(error)
        coming = [job.fitted.specification for job in jobs if job.fitted is not None]
        for job in jobs:
            try:
                await self._make(job, coming, options, caller)
            except DomainError as error:
                job.fail(error)
        return jobs

    async def _fit(self, job: _Job, fitting: Fitting) -> None:
        submission: Submission = parse_submission(job.portable.fields)
        specification = await self._editor.checked(submission.specification, inspect=True)
        fitted = fitting.fit(specification)
        job.result = replace(
            job.result,
            outcome=fitted.outcome,
            name=fitted.specification.name,
            served_model_name=fitted.specification.served_name,
            code="name_taken" if fitted.problem else "",
            message=fitted.problem,
            warnings=(*submission.warnings, *fitted.warnings),
        )
        if fitted.outcome not in (Outcome.FAILED, Outcome.SKIPPED):
            job.fitted = fitted

    async def _make(
        self, job: _Job, coming: Sequence[AnySpecification], options: ImportOptions, caller: Caller
    ) -> None:
        """The model to store, and what is told of it."""
        fitted = job.fitted
        if fitted is None:
            return
        specification, target = fitted.specification, fitted.target
        others = [one for one in coming if one is not specification]
        warnings = await self._editor.judged(specification, present=target, coming=others)
        running = options.start and not job.portable.archived and job.portable.desired_state is DesiredState.RUNNING
        if target is None:
            self._editor.require_offered(specification.engine_type)
            job.model = self._new(specification, job.portable, running=running)
            job.act = Act(caller, "model.import", created(job.model.document), after=describe(job.model.document))
        else:
            job.model, job.act = self._replacement(target, specification, caller)
        same = target is not None and not job.act.changed
        if same:
            job.model = job.act = None
        model_id = job.model.id if job.model is not None else target.id if target is not None else None
        job.result = replace(job.result, id=model_id, warnings=(*job.result.warnings, *warnings))

    def _new(self, specification: AnySpecification, portable: Portable, *, running: bool) -> Model:
        model = self._service.new_model(specification)
        if running:
            wanted = model.document.model_copy(update={"desired_state": DesiredState.RUNNING})
            model = replace(model, document=wanted)
        return replace(model, archived_at=model.created_at) if portable.archived else model

    def _replacement(self, target: Model, specification: AnySpecification, caller: Caller) -> tuple[Model, Act]:
        token = self._editor.sealed(specification.hf_token) or target.document.hf_token_sealed
        document = changed_document(target.document, specification, hf_token_sealed=token)
        after = replace(target, document=document, updated_at=self._editor.clock.now())
        event = updated(document, changed_fields(target.document, document))
        return after, act_of(caller, "model.import", event, (target, after))

    async def _store_together(self, jobs: Sequence[_Job]) -> bool:
        new = [(job.model, job.act) for job in jobs if job.model and job.act and not _replaces(job)]
        changed = [(job.model, job.act) for job in jobs if job.model and job.act and _replaces(job)]
        return await self._editor.repository.write_all(new, changed)

    async def _store_alone(self, job: _Job) -> None:
        if job.model is None or job.act is None:
            return
        try:
            if not _replaces(job):
                await self._editor.repository.add(job.model, job.act)
            elif not await self._editor.repository.replace(job.model, job.act):
                raise too_busy()
        except DomainError as error:
            job.fail(error)


def _replaces(job: _Job) -> bool:
    return job.fitted is not None and job.fitted.target is not None
