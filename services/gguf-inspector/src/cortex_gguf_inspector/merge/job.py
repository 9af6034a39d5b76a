"""Carries a merge out: copy, check, publish. Blocks on the file system; run it in a thread or a command.

Killed at any moment it leaves no file under the final name, and the next run goes on where the journal says. An error that
trying again cannot mend, a full disk among them, leaves nothing at all.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.limits import MIB, Limits
from cortex_gguf_inspector.merge.check import Checker, is_what_the_plan_makes
from cortex_gguf_inspector.merge.copy import Copier, SourceEnded, forget_cache, write_all
from cortex_gguf_inspector.merge.files import Journal, MergeFiles, target_exists
from cortex_gguf_inspector.merge.plan import MergePlan
from cortex_gguf_inspector.merge.prepare import Prepared, prepare, target_of
from cortex_gguf_inspector.merge.sources import OpenSources
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.window import FileSource

SYNC_BYTES = 256 * MIB
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _ignore(phase: str, done: int, total: int) -> None: ...


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How to merge.

    Args:
        progress: told (`copy` or `check`, bytes done, bytes in all) after every chunk.
        stop: asked after every chunk; True ends the merge so that it can be resumed.
        check: read everything back and compare it with the parts before the file gets its name.
        in_kernel: let the kernel copy, where it can.
        sync_bytes: how much a kill may cost.
    """

    progress: Callable[[str, int, int], None] = _ignore
    stop: Callable[[], bool] = _never
    check: bool = True
    in_kernel: bool = True
    sync_bytes: int = SYNC_BYTES


@dataclass(frozen=True, slots=True)
class Merged:
    """A finished merge. `sha256` is None when the file was there already or was not read back."""

    path: str
    parts: int
    size: int
    identity: str
    layout: str
    existed: bool = False
    resumed_at: int = 0
    sha256: str | None = None
    seconds: float = 0.0


def merge_file(
    path: Path | str,
    output: Path | str | None = None,
    limits: Limits | None = None,
    options: MergeOptions | None = None,
) -> Merged:
    """Merge a set of this machine, by absolute or relative paths; as `merge_prepared`."""
    models, limits = ModelsRoot(Path("/")), limits or Limits()
    prepared = prepare(models, _below_slash(path), limits)
    target = target_of(models, prepared, None if output is None else _below_slash(output), None)
    merged = merge_prepared(models, prepared, target, limits, options or MergeOptions())
    return replace(merged, path=f"/{merged.path}")


def _below_slash(path: Path | str) -> str:
    return str(Path(os.path.abspath(path)).relative_to("/"))


def merge_prepared(
    models: ModelsRoot, prepared: Prepared, target: PurePosixPath, limits: Limits, options: MergeOptions
) -> Merged:
    """Make the target, or find that it is there already.

    Raises:
        GgufError: `merge_target_exists`, `merge_running`, `disk_full`, `write_failed`, `merge_mismatch`,
            `merge_stopped`, or what reading the parts raises.
    """
    started = time.monotonic()
    with models.open_folder(target.parent) as folder, _typed_errors(target.name):
        files = MergeFiles(folder, target.name)
        run = _Run(models, prepared.plan, files, limits, options)
        if files.exists():
            run.check_existing()
            existed, sha256 = True, None
        else:
            existed, sha256 = False, run.make()
    return Merged(
        path=str(target),
        parts=prepared.plan.parts,
        size=prepared.plan.size,
        identity=prepared.identity,
        layout=prepared.plan.layout,
        existed=existed,
        resumed_at=run.resumed_at,
        sha256=sha256,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _typed_errors(name: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or errno.EIO)
        raise GgufError(GgufErrorCode.WRITE_FAILED, f"{name} could not be made: {why}") from error


@dataclass
class _Run:
    models: ModelsRoot
    plan: MergePlan
    files: MergeFiles
    limits: Limits
    options: MergeOptions
    resumed_at: int = 0
    _unsynced: int = field(default=0, init=False)

    def check_existing(self) -> None:
        """Accept the file under the final name only when it is what this merge would make."""
        with self.files.finished_file() as descriptor, OpenSources(self.models, self.plan.sources) as sources:
            if not is_what_the_plan_makes(self.plan, sources, descriptor):
                raise target_exists(self.files.name)
        if not self.files.is_running():
            self.files.clean()

    def make(self) -> str | None:
        """Copy, check, publish; returns the SHA-256 when it was computed."""
        self._check_space()
        with self.files.growing_file() as descriptor:
            try:
                sha256 = self._fill(descriptor)
                self.files.publish()
            except GgufError as error:
                if error.reason is not GgufErrorCode.MERGE_STOPPED:
                    self.files.clean()
                raise
            except SourceEnded as error:
                self.files.clean()
                message = "a part became shorter while it was merged: try again when the copy is complete"
                raise GgufError(GgufErrorCode.TRUNCATED, message) from error
            except OSError as error:
                self.files.clean()
                if error.errno in _FULL:
                    raise self._disk_full() from error
                raise
        return sha256

    def _fill(self, descriptor: int) -> str | None:
        self.resumed_at = self._resume_point(descriptor)
        self._copy(descriptor, self.resumed_at)
        if not self.options.check:
            return None
        sha256 = self._check(descriptor)
        if sha256 is None and self.resumed_at:
            self.resumed_at = 0  # what an earlier run left is not what its journal says: once more from the start
            self._copy(descriptor, 0)
            sha256 = self._check(descriptor)
        if sha256 is None:
            message = "the merged file differs from its parts when read back: check the disk"
            raise GgufError(GgufErrorCode.MERGE_MISMATCH, message)
        return sha256

    def _check(self, descriptor: int) -> str | None:
        """Compare with the parts, then with the reader; the SHA-256, or None when something differs."""
        forget_cache(descriptor)
        digest = hashlib.sha256()
        with OpenSources(self.models, self.plan.sources) as sources:
            checker = Checker(self.plan, sources, descriptor, digest.update)
            for done in checker.run():
                self.options.progress("check", done, self.plan.size)
                self._stop_if_asked()
            if not checker.equal:
                return None
        read_header(FileSource(descriptor), self.limits)
        return digest.hexdigest()

    def _resume_point(self, descriptor: int) -> int:
        journal = self.files.journal()
        size = os.fstat(descriptor).st_size
        if journal is None or journal.plan != self.plan.digest or not 0 <= journal.done <= size:
            return 0
        return min(journal.done, self.plan.size)

    def _copy(self, descriptor: int, start: int) -> None:
        if start == 0:
            os.ftruncate(descriptor, 0)
        self._note(descriptor, start)
        write_all(descriptor, self.plan.header, 0)
        copier = Copier(in_kernel=self.options.in_kernel)
        with OpenSources(self.models, self.plan.sources) as sources:
            for piece in self.plan.pieces:
                skipped = max(0, start - piece.target)
                while skipped < piece.length:
                    source = sources.descriptor(piece.source)
                    place, left = piece.target + skipped, piece.length - skipped
                    copied = copier.copy(source, descriptor, piece.offset + skipped, place, left)
                    skipped += copied
                    self._after_chunk(descriptor, copied, piece.target + skipped)
        os.ftruncate(descriptor, self.plan.size)
        self._note(descriptor, self.plan.size)
        os.fsync(descriptor)

    def _after_chunk(self, descriptor: int, copied: int, done: int) -> None:
        self._unsynced += copied
        self.options.progress("copy", done, self.plan.size)
        asked = self.options.stop()
        if asked or self._unsynced >= self.options.sync_bytes:
            self._note(descriptor, done)
        if asked:
            self._stop_if_asked()

    def _note(self, descriptor: int, done: int) -> None:
        """First the data, then the word that they are there."""
        os.fdatasync(descriptor)
        self.files.write_journal(Journal(self.plan.digest, done, self.plan.size))
        self._unsynced = 0

    def _stop_if_asked(self) -> None:
        if self.options.stop():
            message = "the merge was stopped; asked again, it goes on where it was"
            raise GgufError(GgufErrorCode.MERGE_STOPPED, message)

    def _check_space(self) -> None:
        if self.files.free_bytes + self.files.allocated_bytes < self.plan.size:
            raise self._disk_full()

    def _disk_full(self) -> GgufError:
        needed, free = self.plan.size / MIB, (self.files.free_bytes + self.files.allocated_bytes) / MIB
        message = (
            f"the merged file takes {needed:,.0f} MiB, but only {free:,.0f} MiB are free where it would be written"
        )
        return GgufError(GgufErrorCode.DISK_FULL, message)
