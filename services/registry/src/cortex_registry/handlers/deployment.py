"""Backups for administrators: what can be backed up, jobs, what lies there, whether it can be restored."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_registry.domain.deployment import (
    ExportOptions,
    Job,
    JobKind,
    JobStatus,
    Manifest,
    Part,
    Problem,
    RestoreOptions,
    damaged,
    problems,
    valid_folder,
)
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.portable import PortableFile
from cortex_registry.domain.text import is_id
from cortex_registry.handlers.deployment_ports import Backups, JobStore, ModelFileFinder
from cortex_registry.handlers.deployment_work import MODELS_FILE, Sizes, Work

MAX_MODELS_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether a part can be backed up here; `problem` says why not."""

    part: Part
    problem: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """What there is to choose."""

    export_dir: str | None
    problem: str | None
    free_bytes: int | None
    parts: tuple[Ability, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """At a glance."""

    export_dir: str | None
    problem: str | None
    free_bytes: int | None
    backups: int
    active: Sequence[Job]
    latest: Mapping[JobKind, Job]


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup, and what stands against restoring it. `manifest` is None for one that cannot be read."""

    folder: str
    manifest: Manifest | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class BackedUpModels:
    """The models of one backup, in the form that an import takes."""

    manifest: Manifest
    file: PortableFile | None


class Deployment:
    """Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self,
        jobs: JobStore,
        backups: Backups,
        files: ModelFileFinder,
        work: Work,
        *,
        clock: Clock,
        hint: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._backups = backups
        self._files = files
        self._work = work
        self._clock = clock
        self._hint = hint

    async def options(self) -> Options:
        """What can be backed up here."""
        problem = await self._backups.problem()
        parts = tuple(
            Ability(part, problem or (self._files.problem if part is Part.MODEL_FILES else None)) for part in Part
        )
        return Options(self._export_dir, problem, await self._backups.free_bytes(), parts)

    async def status(self) -> Status:
        """What runs, what ran last, what lies there."""
        return Status(
            self._export_dir,
            await self._backups.problem(),
            await self._backups.free_bytes(),
            len(await self._backups.names()),
            await self._jobs.active(),
            await self._jobs.latest(),
        )

    async def jobs(self, kind: JobKind | None, status: JobStatus | None, after: str | None, limit: int) -> list[Job]:
        """The newest first."""
        if after is not None and not is_id(after):
            raise DomainError("invalid_cursor", "`after` is the `next` of the page before.", status=422)
        return await self._jobs.page(kind, status, after, limit)

    async def job(self, job_id: str) -> Job:
        """One job; raises DomainError 404 `job_not_found`."""
        job = await self._jobs.find(job_id)
        if job is None:
            raise DomainError("job_not_found", f"There is no job {job_id}.", status=404)
        return job

    async def cancel(self, job_id: str, caller: Caller) -> Job:
        """End a job. One that runs ends a moment later, and leaves nothing.

        Raises:
            DomainError: 404 `job_not_found`, 409 `job_over`.
        """
        present = await self.job(job_id)
        job = await self._jobs.cancel(job_id, caller)
        if job is None:
            raise DomainError("job_over", f"The job is over: it has {(await self.job(present.id)).status}.", status=409)
        self._hint()
        return job

    async def estimate(self, options: ExportOptions) -> Sizes:
        """About how large a backup would become. Writes nothing."""
        return await self._work.sizes(options)

    async def export(self, folder: str | None, options: ExportOptions, caller: Caller) -> Job:
        """Ask for a backup; returns at once.

        Raises:
            DomainError: 409 `export_dir_unset`, `export_dir_failed`, `folder_taken`, `models_dir_unreadable`; 422 `invalid_folder`.
        """
        self._backups.require()
        if (problem := await self._backups.problem()) is not None:
            raise DomainError("export_dir_failed", f"Backups cannot be written: {problem}.", status=409)
        if Part.MODEL_FILES in options.include and (problem := self._files.problem) is not None:
            raise DomainError("models_dir_unreadable", f"Model files cannot be backed up: {problem}.", status=409)
        name = valid_folder(folder) if folder is not None else f"cortex-{self._clock.now():%Y%m%d-%H%M%S}"
        if await self._backups.exists(name):
            raise DomainError("folder_taken", f"There is a backup named {name} already.", status=409)
        asked: dict[str, JsonValue] = {"include": [part.value for part in options.include], "usage": options.usage}
        return await self._queued(JobKind.EXPORT, name, asked, caller)

    async def restore(self, folder: str, confirm: str, options: RestoreOptions, caller: Caller) -> Job:
        """Ask for the database to be replaced by a backup's; returns at once.

        Raises:
            DomainError: 422 `not_confirmed`, `damaged_backup`; 404 `backup_not_found`; 409 for whatever `problems` finds.
        """
        manifest = await self._backups.manifest(folder)
        if confirm != folder:
            message = "A restore replaces the whole database. Say so: `confirm` is the name of the backup once more."
            raise DomainError("not_confirmed", message, status=422)
        found = problems(manifest, await self._work.here(), other_secret_key=options.other_secret_key)
        if found:
            listed = [{"code": one.code, "message": one.message, "fix": one.fix} for one in found]
            raise DomainError(
                found[0].code, f"{found[0].message} {found[0].fix}", status=409, details={"problems": listed}
            )
        asked: dict[str, JsonValue] = {
            "backup_first": options.backup_first,
            "start": options.start,
            "other_secret_key": options.other_secret_key,
        }
        return await self._queued(JobKind.RESTORE, folder, asked, caller)

    async def dumps(self, folder: str | None) -> list[Backup]:
        """Backups and whether they can be restored now; of `folder` alone, if given (404 `backup_not_found`)."""
        here = await self._work.here()
        if folder is not None:
            manifest = await self._backups.manifest(folder)
            return [Backup(folder, manifest, problems(manifest, here))]
        found: list[Backup] = []
        for name in await self._backups.names():
            try:
                manifest = await self._backups.manifest(name)
            except DomainError as error:
                found.append(Backup(name, None, (Problem(error.code, error.message, "Delete its folder."),)))
                continue
            found.append(Backup(name, manifest, problems(manifest, here)))
        return found

    async def models(self, folder: str | None) -> list[BackedUpModels]:
        """Backups that hold models; of `folder` alone, if given, with everything that an import takes."""
        if folder is not None:
            manifest = await self._backups.manifest(folder)
            return [BackedUpModels(manifest, await self._models_of(manifest))]
        backups = [one.manifest for one in await self.dumps(None) if one.manifest is not None]
        return [BackedUpModels(manifest, None) for manifest in backups if Part.MODELS in manifest.parts]

    async def _models_of(self, manifest: Manifest) -> PortableFile | None:
        if Part.MODELS not in manifest.parts:
            return None
        try:
            document = json.loads(await self._backups.text(manifest.folder, MODELS_FILE, MAX_MODELS_FILE))
            return PortableFile.model_validate(document) if document else None
        except (ValueError, ValidationError) as error:
            raise damaged(f"{MODELS_FILE} cannot be read") from error

    @property
    def _export_dir(self) -> str | None:
        root = self._backups.root
        return str(root) if root is not None else None

    async def _queued(self, kind: JobKind, folder: str, options: Mapping[str, JsonValue], caller: Caller) -> Job:
        job = Job(uuid7(), kind, folder, options, caller, self._clock.now())
        await self._jobs.add(job)
        self._hint()
        return job
