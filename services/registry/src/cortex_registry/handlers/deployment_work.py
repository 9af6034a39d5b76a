"""How an export is made and a restore carried out."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import JsonValue

from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_registry.domain.deployment import (
    DATABASE_SHARE,
    DatabaseDump,
    DumpedTable,
    ExportOptions,
    FileEntry,
    Here,
    Job,
    JobKind,
    JobStatus,
    Manifest,
    Part,
    Progress,
    model_paths,
    problems,
)
from cortex_registry.handlers.deployment_ports import Backups, Dumps, FoundModelFiles, ModelFileFinder, StagedBackup
from cortex_registry.handlers.portable import PortableService

MODELS_FILE = "models.json"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a backup tells of the installation that made it. `settings` holds no secret."""

    version: str
    key_fingerprints: tuple[str, ...]
    settings: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Sizes:
    """About how large a backup would become, by part."""

    parts: Mapping[Part, int]
    missing_files: tuple[str, ...]
    free_bytes: int | None

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Sources:
    """What a backup is made of."""

    dumps: Dumps
    backups: Backups
    portable: PortableService
    files: ModelFileFinder


class Work:
    """Carries jobs out. Nothing half done is left, whatever happens."""

    def __init__(self, sources: Sources, identity: Identity, clock: Clock) -> None:
        self._dumps = sources.dumps
        self._backups = sources.backups
        self._portable = sources.portable
        self._files = sources.files
        self._identity = identity
        self._clock = clock

    async def carry_out(self, job: Job, progress: Progress) -> Mapping[str, JsonValue]:
        """Raises DomainError, UnavailableError."""
        if job.kind is JobKind.EXPORT:
            manifest = await self._export(job.folder, job, job.export, progress)
            return told(manifest)
        return await self._restore(job, progress)

    async def sizes(self, options: ExportOptions) -> Sizes:
        """Look at tables and files."""
        parts: dict[Part, int] = {}
        missing: tuple[str, ...] = ()
        if Part.DATABASE in options.include:
            parts[Part.DATABASE] = await self._dumps.table_bytes(usage=options.usage) // DATABASE_SHARE
        if Part.MODEL_FILES in options.include:
            found = await self._model_files()
            parts[Part.MODEL_FILES], missing = found.bytes, found.missing
        for part in (Part.MODELS, Part.SETTINGS):
            if part in options.include:
                parts[part] = len(await self._document(part))
        return Sizes(parts, missing, await self._backups.free_bytes())

    async def here(self) -> Here:
        """What a backup is held against before it is restored."""
        return Here(await self._dumps.migrations(), self._identity.key_fingerprints, await self._dumps.running_models())

    async def _export(self, folder: str, job: Job, options: ExportOptions, progress: Progress) -> Manifest:
        progress.step = "looking how large it becomes"
        sizes = await self.sizes(options)
        progress.total = sizes.total
        if sizes.free_bytes is not None and sizes.free_bytes < sizes.total:
            message = f"It takes about {sizes.total} bytes, and {sizes.free_bytes} are free."
            raise DomainError("not_enough_space", message, status=409)
        if await self._backups.exists(folder):
            raise DomainError("folder_taken", f"There is a backup named {folder} already.", status=409)
        async with self._backups.staging(folder, job.id) as staging:
            started = self._clock.now()
            dump = await self._dump(staging, options, progress) if Part.DATABASE in options.include else None
            for part, name in ((Part.MODELS, MODELS_FILE), (Part.SETTINGS, SETTINGS_FILE)):
                if part in options.include:
                    progress.step = name
                    await staging.write(name, await self._document(part))
            missing = await self._take_files(staging, progress) if Part.MODEL_FILES in options.include else ()
            progress.step = "putting it in place"
            manifest = self._manifest(folder, started, job, (options.include, staging.files, dump, missing))
            await staging.publish(manifest)
        return manifest

    def _manifest(
        self,
        folder: str,
        started: datetime,
        job: Job,
        content: tuple[tuple[Part, ...], Sequence[FileEntry], DatabaseDump | None, tuple[str, ...]],
    ) -> Manifest:
        parts, files, dump, missing = content
        return Manifest(
            folder=folder,
            created_at=started,
            version=self._identity.version,
            parts=parts,
            files=tuple(files),
            database=dump,
            missing_files=missing,
            created_by=job.caller.actor,
        )

    async def _dump(self, staging: StagedBackup, options: ExportOptions, progress: Progress) -> DatabaseDump:
        dumped: list[DumpedTable] = []
        async with self._dumps.snapshot() as snapshot:
            for table in await snapshot.tables(usage=options.usage):
                progress.step = f"table {table.name}"
                name = f"database/{table.name}.copy.gz"
                async with staging.compressed(name) as file:
                    rows = await snapshot.copy(table, file.write)
                progress.done += staging.files[-1].bytes
                dumped.append(DumpedTable(table.name, table.columns, rows, name))
            return DatabaseDump(
                migrations=await snapshot.migrations(),
                key_fingerprints=self._identity.key_fingerprints,
                tables=tuple(dumped),
                usage_months=await snapshot.usage_months() if options.usage else (),
                usage=options.usage,
            )

    async def _document(self, part: Part) -> bytes:
        if part is Part.SETTINGS:
            return json.dumps(dict(self._identity.settings), indent=2, default=str).encode() + b"\n"
        file = await self._portable.export_all()
        text = file.model_dump_json(indent=2, exclude_none=True) if file is not None else "{}"
        return text.encode() + b"\n"

    async def _model_files(self) -> FoundModelFiles:
        file = await self._portable.export_all()
        models = file.models if file is not None else ()
        return await self._files.find([path for fields in models for path in model_paths(fields)])

    async def _take_files(self, staging: StagedBackup, progress: Progress) -> tuple[str, ...]:
        found = await self._model_files()

        def advance(count: int) -> None:
            progress.done += count

        for file in found.files:
            progress.step = f"model file {file.path}"
            await staging.take(file.source, f"model_files/{file.path}", advance)
        return found.missing

    async def _restore(self, job: Job, progress: Progress) -> Mapping[str, JsonValue]:
        progress.step = "reading the manifest"
        manifest = await self._backups.manifest(job.folder)
        found = problems(manifest, await self.here(), other_secret_key=job.restore.other_secret_key)
        if found or manifest.database is None:
            first = found[0]
            raise DomainError(first.code, f"{first.message} {first.fix}", status=409)
        progress.total = 2 * sum(one.bytes for one in manifest.files if one.path.startswith("database/"))

        def checked(step: str, count: int) -> None:
            progress.step, progress.done = step, progress.done + count

        await self._backups.verify(manifest, checked)
        safety = await self._before(job, progress)
        rows = sum(table.rows for table in manifest.database.tables)
        result: dict[str, JsonValue] = {"rows": rows, "tables": len(manifest.database.tables), "safety_backup": safety}
        ending = replace(job, status=JobStatus.SUCCEEDED, result=result)
        await self._dumps.replace(manifest.database, self._reading(manifest, progress), ending)
        return result

    def _reading(self, manifest: Manifest, progress: Progress) -> Callable[[DumpedTable], AsyncIterator[bytes]]:
        sizes = {one.path: one.bytes for one in manifest.files}

        def read(table: DumpedTable) -> AsyncIterator[bytes]:
            progress.step = f"restoring {table.name}"
            name = f"database/{table.name}.copy.gz"  # never what the manifest names
            progress.done += sizes.get(name, 0)
            return self._backups.rows(manifest.folder, name, lambda _: None)

        return read

    async def _before(self, job: Job, progress: Progress) -> str | None:
        """The present database, put aside first."""
        if not job.restore.backup_first:
            return None
        inner = Progress()
        progress.step = "backing the present database up"
        folder = f"before-restore-{self._clock.now():%Y%m%d-%H%M%S}-{job.id[-4:]}"
        options = ExportOptions(include=(Part.DATABASE, Part.MODELS, Part.SETTINGS))
        await self._export(folder, job, options, inner)
        return folder


def told(manifest: Manifest) -> dict[str, JsonValue]:
    """What a job tells of the backup it has made."""
    database = manifest.database
    return {
        "bytes": manifest.bytes,
        "files": len(manifest.files),
        "rows": sum(table.rows for table in database.tables) if database is not None else 0,
        "missing_files": list(manifest.missing_files[:100]),
    }
