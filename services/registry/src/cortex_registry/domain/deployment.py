"""Backups: what goes into one, what a job may do, and whether a backup may replace a database. No I/O."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from pydantic import JsonValue

from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Caller

FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Names of backups: one folder below the export folder, never hidden, never a path."""
MAX_ATTEMPTS = 3
USAGE_PREFIX = "usage"
DATABASE_SHARE = 3
"""A table takes about this many times the room that its compressed dump does."""

LOCAL_TABLES = frozenset({"schema_migrations", "deployment_jobs", "outbox", "idempotency_keys"})
"""Of this installation: neither dumped nor touched by a restore. Events that wait in the outbox did happen."""
FLEETING_TABLES = frozenset({"sessions", "login_failures"})
"""Not dumped; emptied by a restore, since they belong to users that are replaced."""


class Part(StrEnum):
    """What a backup may hold."""

    DATABASE = "database"
    MODELS = "models"
    SETTINGS = "settings"
    MODEL_FILES = "model_files"


USUAL = (Part.DATABASE, Part.MODELS, Part.SETTINGS)


class JobKind(StrEnum):
    EXPORT = "export"
    RESTORE = "restore"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """`usage`: whether usage records and their sums are dumped, by far the largest part of a database."""

    include: tuple[Part, ...] = USUAL
    usage: bool = True


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """`start`: models keep the desired state of the backup, else all are stopped.

    `backup_first` dumps the present database before it is replaced. `other_secret_key` accepts that secrets sealed with a
    key that is not known here stay closed.
    """

    backup_first: bool = True
    start: bool = False
    other_secret_key: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, and what to do about it."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Job:
    """An export or a restore."""

    id: str
    kind: JobKind
    folder: str
    options: Mapping[str, JsonValue]
    caller: Caller
    created_at: datetime
    status: JobStatus = JobStatus.QUEUED
    step: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    result: Mapping[str, JsonValue] | None = None
    failure: Failure | None = None
    cancel_requested: bool = False
    attempts: int = 0
    """Also the fence: whoever carries out an earlier attempt may write nothing any more."""
    instance: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def export(self) -> ExportOptions:
        include = self.options.get("include")
        parts = tuple(Part(str(one)) for one in include) if isinstance(include, list) else USUAL
        return ExportOptions(parts, self.options.get("usage") is not False)

    @property
    def restore(self) -> RestoreOptions:
        given = self.options
        return RestoreOptions(
            backup_first=given.get("backup_first") is not False,
            start=given.get("start") is True,
            other_secret_key=given.get("other_secret_key") is True,
        )


@dataclass(slots=True)
class Progress:
    """How far a job is; written by whoever works, read now and then by whoever reports."""

    step: str = ""
    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the schema: its columns, and the tables that its rows refer to."""

    name: str
    columns: tuple[str, ...]
    refers_to: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DumpedTable:
    """One table of a dump."""

    name: str
    columns: tuple[str, ...]
    rows: int
    file: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a backup, by its path in it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DatabaseDump:
    """What a backup holds of a database."""

    migrations: Mapping[int, str]
    """Version -> checksum of every migration that was applied."""
    key_fingerprints: tuple[str, ...]
    """Of the keys that secrets were sealed with: the present one first, then those of before."""
    tables: tuple[DumpedTable, ...]
    usage_months: tuple[str, ...] = ()
    usage: bool = True


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    folder: str
    created_at: datetime
    version: str
    parts: tuple[Part, ...]
    files: tuple[FileEntry, ...]
    database: DatabaseDump | None = None
    missing_files: tuple[str, ...] = ()
    created_by: str = ""

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a backup cannot be restored here as it is."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Here:
    """What a backup is held against."""

    migrations: Mapping[int, str]
    key_fingerprints: Collection[str]
    running: Sequence[str] = field(default=())
    """Names of models that are asked to run."""


def valid_folder(folder: str) -> str:
    """The name, if it is one.

    Raises:
        DomainError: 422 `invalid_folder`.
    """
    if re.fullmatch(FOLDER, folder) is None:
        message = (
            "A backup's name has letters, digits, dot, dash and underscore, begins with a letter or digit, 100 at most."
        )
        errors = [{"field": "folder", "code": "invalid_folder", "message": message}]
        raise DomainError("invalid_folder", message, status=422, details={"errors": errors})
    return folder


def dumped_tables(tables: Iterable[Table], *, usage: bool) -> tuple[Table, ...]:
    """What a dump holds, each table after those it refers to."""
    left = {
        table.name: table
        for table in tables
        if table.name not in LOCAL_TABLES | FLEETING_TABLES and (usage or not is_usage(table.name))
    }
    ordered: list[Table] = []
    while left:
        ready = sorted(name for name, table in left.items() if not (table.refers_to & left.keys()) - {name})
        if not ready:
            raise DomainError("schema_circular", f"Tables refer to each other in a circle: {sorted(left)}.", status=500)
        ordered += [left.pop(name) for name in ready]
    return tuple(ordered)


def is_usage(table: str) -> bool:
    """Whether it holds usage records or their sums."""
    return table == USAGE_PREFIX or table.startswith(f"{USAGE_PREFIX}_")


def problems(manifest: Manifest, here: Here, *, other_secret_key: bool = False) -> tuple[Problem, ...]:
    """Everything that stands against a restore; empty: nothing does."""
    dump = manifest.database
    if dump is None:
        message = f"{manifest.folder} holds no database."
        return (Problem("no_database", message, "Choose a backup that was made with the part `database`."),)
    found: list[Problem] = []
    if (schema := _other_schema(manifest, dump, here)) is not None:
        found.append(schema)
    if not other_secret_key and not set(dump.key_fingerprints) & set(here.key_fingerprints):
        message = "Its secrets are sealed with a CORTEX_SECRET_KEY that is not known here."
        fix = (
            "Put the key of that installation into CORTEX_SECRET_KEYS_OLD and start Cortex again, or accept that Hugging Face "
            "tokens, webhook secrets and keys of upstreams must be set anew (other_secret_key)."
        )
        found.append(Problem("other_secret_key", message, fix))
    if here.running:
        names = ", ".join(here.running[:5]) + (" …" if len(here.running) > 5 else "")
        message = f"Models are asked to run: {names}."
        found.append(Problem("models_running", message, "Stop them first: `cortex model stop NAME`."))
    return tuple(found)


def _other_schema(manifest: Manifest, dump: DatabaseDump, here: Here) -> Problem | None:
    if dict(dump.migrations) == dict(here.migrations):
        return None
    theirs, ours = max(dump.migrations, default=0), max(here.migrations, default=0)
    message = f"It is of schema {theirs:04} (Cortex {manifest.version}), this database is at {ours:04}."
    if theirs < ours:
        fix = (
            f"Start the Cortex it was made with ({manifest.version}) on an empty database, restore there, then upgrade."
        )
    elif theirs > ours:
        fix = f"Upgrade Cortex to {manifest.version} or later first."
    else:
        fix = f"Restore it with the very Cortex it was made with ({manifest.version})."
    return Problem("other_schema", message, fix)


def check_tables(dump: DatabaseDump, tables: Iterable[Table]) -> None:
    """Raises DomainError 422 `damaged_backup` unless the dump holds exactly the tables and columns of this schema."""
    wanted = {table.name: table.columns for table in dumped_tables(tables, usage=dump.usage)}
    given = {table.name: table.columns for table in dump.tables}
    if wanted != given:
        names = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise damaged(f"its tables are not those of the schema: {', '.join(names[:5])}")


def damaged(what: str) -> DomainError:
    """A backup that must not be used."""
    return DomainError("damaged_backup", f"The backup is damaged: {what}. Take another one.", status=422)


_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_PATHS = ("local_path", "mmproj_path", "draft_model_path", "chat_template_file", "grammar_file", "hf_config_path")
_LISTS = ("lora_adapters", "lora_modules")


def model_paths(fields: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Paths below the models folder that a model's fields name."""
    found = [fields.get(name) for name in _PATHS]
    for name in _LISTS:
        given = fields.get(name)
        found += [one.get("path") for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    return tuple(dict.fromkeys(path for path in found if isinstance(path, str) and _below(path)))


def _below(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts


def parts_of(path: str) -> tuple[str, ...]:
    """Every file of a split GGUF file; the path itself for any other."""
    pure = PurePosixPath(path)
    match = _SPLIT.fullmatch(pure.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    if not 0 < count <= 1000:
        return (path,)
    return tuple(
        str(pure.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf")) for number in range(1, count + 1)
    )


def after_death(job: Job) -> Job:
    """What becomes of a job whose registry died: an export is begun anew, a restore was rolled back by Postgres."""
    if job.kind is JobKind.EXPORT and job.attempts < MAX_ATTEMPTS:
        return replace(job, status=JobStatus.QUEUED, instance=None)
    if job.kind is JobKind.EXPORT:
        message = f"The registry that made it died, {job.attempts} times."
        failure = Failure("registry_lost", message, "Look at the registry's log, then start it again.")
    else:
        message = "The registry died while it restored. Postgres rolled everything back: the database is as it was."
        failure = Failure("registry_lost", message, "Start the restore again.")
    return replace(job, status=JobStatus.FAILED, failure=failure)
