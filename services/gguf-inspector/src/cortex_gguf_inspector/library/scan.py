"""The library of one directory. Reads only what changed since the last look. Blocks; needs no running service."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from cortex_contracts.library import EntryState, LibraryEntryV1, LibraryV1
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.library.examine import Examined, examine, pending
from cortex_gguf_inspector.library.relate import relate
from cortex_gguf_inspector.library.tree import ScanBounds, walk
from cortex_gguf_inspector.library.units import group
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import ModelsRoot

Progress = Callable[[int, int], None]
ROOT = PurePosixPath()


def _ignore(done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One scan. `examined` and `entries` are in the same order, by path."""

    examined: tuple[Examined, ...]
    entries: tuple[LibraryEntryV1, ...]
    scanned_at: datetime
    seconds: float
    read: int
    """Units that were read; the others were known."""
    complete: bool
    notes: tuple[str, ...]

    def page(self, below: PurePosixPath, offset: int, limit: int) -> LibraryV1:
        """A part of the entries, those in a folder and below."""
        chosen = [entry for entry in self.entries if PurePosixPath(entry.path).is_relative_to(below)]
        return LibraryV1(
            entries=tuple(chosen[offset : offset + limit]),
            total=len(chosen),
            total_bytes=sum(entry.size for entry in chosen),
            scanned_at=self.scanned_at,
            seconds=round(self.seconds, 4),
            complete=self.complete,
            notes=self.notes,
        )


class Library:
    """Scans one root again and again. Not for two threads at once."""

    def __init__(self, root: Path, limits: Limits | None = None, bounds: ScanBounds | None = None) -> None:
        self._models = ModelsRoot(root)
        self._limits = limits or Limits()
        self._bounds = bounds or ScanBounds()
        self._known: dict[tuple[str, object], tuple[tuple[object, ...], Examined]] = {}

    def scan(self, below: PurePosixPath = ROOT, progress: Progress = _ignore) -> Snapshot:
        """Look at everything in a folder and below.

        Raises:
            GgufError: the folder is not there or is refused.
        """
        started = time.monotonic()
        tree = walk(self._models, below, self._bounds)
        units = group(tree.files)
        known = self._known
        self._known = {}
        found: list[Examined] = []
        read = 0
        for number, unit in enumerate(units):
            key = (str(unit.path), unit.kind)
            old = known.get(key)
            if old is not None and old[0] == unit.fingerprint:
                one = old[1]
            elif time.monotonic() - started > self._bounds.time_s:
                tree.stop(f"not everything could be read within {self._bounds.time_s:g} s")
                one = pending(unit)
            else:
                one = examine(self._models, unit, self._limits)
                read += 1
            if one.entry.state is not EntryState.PENDING:
                self._known[key] = (unit.fingerprint, one)
            found.append(one)
            progress(number + 1, len(units))
        return Snapshot(
            examined=tuple(found),
            entries=tuple(relate(found)),
            scanned_at=datetime.now(UTC),
            seconds=time.monotonic() - started,
            read=read,
            complete=tree.complete,
            notes=tuple(tree.notes),
        )


def scan_folder(folder: Path | str, bounds: ScanBounds | None = None, progress: Progress = _ignore) -> LibraryV1:
    """Scan a folder of this machine; the paths are relative to it.

    Raises:
        GgufError: as `Library.scan`.
    """
    if not os.path.isdir(folder):
        raise GgufError(GgufErrorCode.FILE_NOT_FOUND, f"{folder} is no folder")
    snapshot = Library(Path(os.path.abspath(folder)), bounds=bounds).scan(progress=progress)
    return snapshot.page(ROOT, 0, len(snapshot.entries))
