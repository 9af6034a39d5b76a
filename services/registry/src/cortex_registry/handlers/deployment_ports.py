"""What backups need of the world."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from cortex_registry.domain.deployment import (
    DatabaseDump,
    DumpedTable,
    FileEntry,
    Job,
    JobKind,
    JobStatus,
    Manifest,
    Progress,
    Table,
)
from cortex_registry.domain.identity import Caller


class JobStore(Protocol):
    """Jobs. Every method raises DatabaseUnavailableError."""

    async def add(self, job: Job) -> None:
        """Queue a job; raises DomainError 409 `folder_taken`, an export of that name is under way."""
        ...

    async def find(self, job_id: str) -> Job | None: ...

    async def page(self, kind: JobKind | None, status: JobStatus | None, after: str | None, limit: int) -> list[Job]:
        """The newest first."""
        ...

    async def active(self) -> list[Job]:
        """Those that wait or run, the oldest first."""
        ...

    async def latest(self) -> Mapping[JobKind, Job]:
        """The last of each kind that succeeded."""
        ...

    async def cancel(self, job_id: str, caller: Caller) -> Job | None:
        """End a job that waits, ask one that runs to end; None when it is over, or there is none."""
        ...

    async def claim(self, instance: str, lost_after_s: float) -> Job | None:
        """Take the next job, unless one runs; first settle those whose registry died."""
        ...

    async def beat(self, job: Job, progress: Progress) -> bool | None:
        """Say how far a job is; returns whether it is to be cancelled, None when it is no longer ours."""
        ...

    async def settle(self, job: Job) -> bool:
        """Store how it ended; False when it is no longer ours."""
        ...


class Snapshot(Protocol):
    """A database as it was at one moment. Raises UnavailableError."""

    async def tables(self, *, usage: bool) -> tuple[Table, ...]: ...

    async def copy(self, table: Table, write: Callable[[bytes], Coroutine[Any, Any, None]]) -> int: ...

    async def usage_months(self) -> tuple[str, ...]: ...

    async def migrations(self) -> Mapping[int, str]: ...


class Dumps(Protocol):
    """Dumps and restores. Raises UnavailableError."""

    async def migrations(self) -> Mapping[int, str]: ...

    async def running_models(self) -> Sequence[str]:
        """Names of models of ours that are asked to run."""
        ...

    async def table_bytes(self, *, usage: bool) -> int:
        """Room that the tables take which a dump would hold, without indexes."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...

    async def replace(self, dump: DatabaseDump, read: Callable[[DumpedTable], AsyncIterator[bytes]], job: Job) -> None:
        """Put a dump in the place of what there is, and settle the job with it: all or nothing.

        Raises:
            DomainError: 422 `damaged_backup`; 409 `models_running`, `job_lost`.
        """
        ...


class OpenFile(Protocol):
    """A file that is being written."""

    async def write(self, data: bytes) -> None: ...


class StagedBackup(Protocol):
    """A backup in the making."""

    files: list[FileEntry]

    def compressed(self, name: str) -> AbstractAsyncContextManager[OpenFile]: ...

    async def write(self, name: str, content: bytes) -> None: ...

    async def take(self, source: Path, name: str, advance: Callable[[int], None]) -> None: ...

    async def publish(self, manifest: Manifest) -> None: ...


class Backups(Protocol):
    """Backups on disk. Raises DomainError 409 `export_dir_unset`, `export_dir_failed`."""

    @property
    def root(self) -> Path | None: ...

    def require(self) -> Path: ...

    async def problem(self) -> str | None: ...

    async def free_bytes(self) -> int | None: ...

    async def names(self) -> Sequence[str]: ...

    async def exists(self, folder: str) -> bool: ...

    async def manifest(self, folder: str) -> Manifest: ...

    async def text(self, folder: str, name: str, most: int) -> bytes: ...

    async def verify(self, manifest: Manifest, advance: Callable[[str, int], None]) -> None: ...

    def rows(self, folder: str, name: str, advance: Callable[[int], None]) -> AsyncIterator[bytes]: ...

    def staging(self, folder: str, job_id: str) -> AbstractAsyncContextManager[StagedBackup]: ...


class FoundModelFile(Protocol):
    """A file of a model."""

    @property
    def path(self) -> str: ...

    @property
    def source(self) -> Path: ...

    @property
    def bytes(self) -> int: ...


class FoundModelFiles(Protocol):
    """What was found."""

    @property
    def files(self) -> Sequence[FoundModelFile]: ...

    @property
    def missing(self) -> tuple[str, ...]: ...

    @property
    def bytes(self) -> int: ...


class ModelFileFinder(Protocol):
    """The models folder."""

    @property
    def problem(self) -> str | None: ...

    async def find(self, paths: Sequence[str]) -> FoundModelFiles: ...


class WorkOfJobs(Protocol):
    """Carries a job out."""

    async def carry_out(self, job: Job, progress: Progress) -> Mapping[str, JsonValue]:
        """Returns what is to be told of it; raises DomainError, UnavailableError."""
        ...
