"""Bodies and answers about backups. Sizes in bytes."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from cortex_registry.domain.deployment import (
    FOLDER,
    USUAL,
    ExportOptions,
    Job,
    JobKind,
    JobStatus,
    Part,
    Problem,
    RestoreOptions,
)
from cortex_registry.domain.portable import PortableFile
from cortex_registry.handlers.deployment import BackedUpModels, Backup, Options, Status
from cortex_registry.handlers.deployment_work import Sizes

Folder = Annotated[str, Field(pattern=FOLDER, max_length=100, examples=["nightly-2026-11-22"])]
_JOB: JsonDict = {
    "id": "01995c3e-7a00-7000-8000-000000000001",
    "kind": "export",
    "status": "running",
    "folder": "nightly-2026-11-22",
    "options": {"include": ["database", "models", "settings"], "usage": True},
    "step": "table usage",
    "done_bytes": 1048576,
    "total_bytes": 4194304,
    "result": None,
    "error": None,
    "cancel_requested": False,
    "attempts": 1,
    "instance": "registry-1",
    "requested_by": "ada",
    "created_at": "2026-11-22T22:00:00Z",
    "started_at": "2026-11-22T22:00:01Z",
    "finished_at": None,
}


class EstimateBody(BaseModel):
    """What would be backed up."""

    model_config = ConfigDict(extra="forbid")

    include: tuple[Part, ...] = Field(
        default=USUAL,
        min_length=1,
        max_length=4,
        description="`database`: everything but sessions; secrets stay sealed. `models`: in the form that an import takes. "
        "`settings`: of this registry, without secrets. `model_files`: weights below the models folder.",
    )
    usage: bool = Field(strict=True, default=True, description="Whether usage records are part of the database's dump.")

    def options(self) -> ExportOptions:
        """Each part once, in its own order."""
        return ExportOptions(tuple(part for part in Part if part in self.include), self.usage)


class ExportBody(EstimateBody):
    """A backup to make. Its folder lies below CORTEX_EXPORT_DIR; without a name the time is its name."""

    folder: Folder | None = None


class RestoreBody(BaseModel):
    """A backup whose database replaces the present one."""

    model_config = ConfigDict(extra="forbid")

    folder: Folder
    confirm: str = Field(
        max_length=100, description="The name of the backup once more.", examples=["nightly-2026-11-22"]
    )
    backup_first: bool = Field(
        strict=True, default=True, description="Back the present database up before it is replaced."
    )
    start: bool = Field(
        strict=True, default=False, description="Models keep the desired state of the backup; else all are stopped."
    )
    other_secret_key: bool = Field(
        strict=True, default=False, description="Accept that secrets sealed with a key that is not known here are lost."
    )

    def options(self) -> RestoreOptions:
        return RestoreOptions(self.backup_first, self.start, self.other_secret_key)


class FailureAnswer(BaseModel):
    """Why a job failed, and what to do about it."""

    code: str
    message: str
    fix: str


class JobAnswer(BaseModel):
    """An export or a restore."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: str
    kind: JobKind
    status: JobStatus
    folder: str
    options: dict[str, JsonValue]
    step: str = Field(description="What it is doing, or did last.")
    done_bytes: int
    total_bytes: int | None = Field(description="Estimated.")
    result: dict[str, JsonValue] | None
    error: FailureAnswer | None
    cancel_requested: bool
    attempts: int
    instance: str | None = Field(description="The registry that carries it out, or did last.")
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> "JobAnswer":
        failure = job.failure
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            folder=job.folder,
            options=dict(job.options),
            step=job.step,
            done_bytes=job.done_bytes,
            total_bytes=job.total_bytes,
            result=dict(job.result) if job.result is not None else None,
            error=FailureAnswer(code=failure.code, message=failure.message, fix=failure.fix) if failure else None,
            cancel_requested=job.cancel_requested,
            attempts=job.attempts,
            instance=job.instance,
            requested_by=job.caller.actor,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobList(BaseModel):
    """The newest first."""

    items: list[JobAnswer]
    next: str | None = Field(description="Give it as `after` for the next page.")


class PartAnswer(BaseModel):
    """A part of a backup; `problem` says why it cannot be backed up here."""

    part: Part
    default: bool
    available: bool
    problem: str | None


class OptionsAnswer(BaseModel):
    """What there is to choose. The folder is a setting: CORTEX_EXPORT_DIR."""

    export_dir: str | None
    setting: str = "CORTEX_EXPORT_DIR"
    problem: str | None = Field(description="Why no backup can be written; null when one can.")
    free_bytes: int | None
    parts: list[PartAnswer]

    @classmethod
    def of(cls, options: Options) -> "OptionsAnswer":
        parts = [
            PartAnswer(part=one.part, default=one.part in USUAL, available=one.problem is None, problem=one.problem)
            for one in options.parts
        ]
        return cls(export_dir=options.export_dir, problem=options.problem, free_bytes=options.free_bytes, parts=parts)


class StatusAnswer(BaseModel):
    """Backups at a glance."""

    export_dir: str | None
    problem: str | None
    free_bytes: int | None
    backups: int
    active: list[JobAnswer] = Field(description="Those that wait or run, the oldest first.")
    last_export: JobAnswer | None = Field(description="The last one that succeeded.")
    last_restore: JobAnswer | None

    @classmethod
    def of(cls, status: Status) -> "StatusAnswer":
        export, restore = status.latest.get(JobKind.EXPORT), status.latest.get(JobKind.RESTORE)
        return cls(
            export_dir=status.export_dir,
            problem=status.problem,
            free_bytes=status.free_bytes,
            backups=status.backups,
            active=[JobAnswer.of(job) for job in status.active],
            last_export=JobAnswer.of(export) if export is not None else None,
            last_restore=JobAnswer.of(restore) if restore is not None else None,
        )


class SizesAnswer(BaseModel):
    """About how large a backup would become."""

    parts: dict[Part, int]
    total_bytes: int
    free_bytes: int | None
    fits: bool | None = Field(description="Null when the free room cannot be told.")
    missing_files: list[str] = Field(description="Files that models name and that are not there, a hundred at most.")

    @classmethod
    def of(cls, sizes: Sizes) -> "SizesAnswer":
        fits = None if sizes.free_bytes is None else sizes.total <= sizes.free_bytes
        missing = list(sizes.missing_files[:100])
        return cls(
            parts=dict(sizes.parts),
            total_bytes=sizes.total,
            free_bytes=sizes.free_bytes,
            fits=fits,
            missing_files=missing,
        )


class ProblemAnswer(BaseModel):
    """What stands against a restore, and what to do about it."""

    code: str
    message: str
    fix: str

    @classmethod
    def of(cls, problem: Problem) -> "ProblemAnswer":
        return cls(code=problem.code, message=problem.message, fix=problem.fix)


class DumpedTableAnswer(BaseModel):
    """One table of a dump."""

    name: str
    rows: int


class BackupAnswer(BaseModel):
    """A backup. Fields are null for one that cannot be read."""

    folder: str
    created_at: datetime | None
    created_by: str | None
    version: str | None = Field(description="Of the Cortex that made it.")
    schema_version: int | None = Field(description="The last migration of its database.")
    parts: list[Part]
    bytes: int | None
    usage: bool | None = Field(description="Whether usage records are in it.")
    tables: list[DumpedTableAnswer]
    missing_files: list[str]
    restorable: bool = Field(description="Whether its database could be restored now.")
    problems: list[ProblemAnswer]

    @classmethod
    def of(cls, backup: Backup) -> "BackupAnswer":
        manifest = backup.manifest
        database = manifest.database if manifest is not None else None
        return cls(
            folder=backup.folder,
            created_at=manifest.created_at if manifest is not None else None,
            created_by=manifest.created_by if manifest is not None else None,
            version=manifest.version if manifest is not None else None,
            schema_version=max(database.migrations, default=None) if database is not None else None,
            parts=list(manifest.parts) if manifest is not None else [],
            bytes=manifest.bytes if manifest is not None else None,
            usage=database.usage if database is not None else None,
            tables=[DumpedTableAnswer(name=one.name, rows=one.rows) for one in database.tables] if database else [],
            missing_files=list(manifest.missing_files[:100]) if manifest is not None else [],
            restorable=not backup.problems,
            problems=[ProblemAnswer.of(one) for one in backup.problems],
        )


class BackupList(BaseModel):
    """The newest first, a thousand at most."""

    items: list[BackupAnswer]


class ModelManifestAnswer(BaseModel):
    """Models of a backup. `file` is what POST /admin/models-import takes; given when one backup was asked for."""

    folder: str
    created_at: datetime
    model_files: bool = Field(description="Whether the weights are in the backup, too.")
    models: list[str]
    file: PortableFile | None = None

    @classmethod
    def of(cls, backed: BackedUpModels) -> "ModelManifestAnswer":
        manifest = backed.manifest
        models = backed.file.models if backed.file is not None else ()
        return cls(
            folder=manifest.folder,
            created_at=manifest.created_at,
            model_files=Part.MODEL_FILES in manifest.parts,
            models=[str(one.get("name")) for one in models],
            file=backed.file,
        )


class ModelManifestList(BaseModel):
    items: list[ModelManifestAnswer]
