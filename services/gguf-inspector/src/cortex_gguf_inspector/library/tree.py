"""Walks the models root: bounded in entries, depth and time, without following links to folders."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.paths import ModelsRoot

SUFFIXES = (".gguf", ".safetensors")
NAMED = ("config.json", "adapter_config.json", "model.safetensors.index.json", "adapter_model.bin", "pytorch_model.bin")
JOURNAL = ".merging.json"
SHOWN_NOTES = 8
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file, or a link to one inside the root, as it was when the tree was walked."""

    path: PurePosixPath
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class ScanBounds:
    """How much of a directory is looked at. `time_s` bounds the whole scan, reading included."""

    entries: int = 100_000
    depth: int = 8
    time_s: float = 30.0


@dataclass(slots=True)
class Tree:
    """The files that may be models; `complete` is False when a bound was reached, and `notes` say which."""

    files: list[FoundFile] = field(default_factory=list[FoundFile])
    notes: list[str] = field(default_factory=list[str])
    complete: bool = True
    entries: int = 0

    def note(self, text: str) -> None:
        """Say something once, and not without end."""
        if text not in self.notes and len(self.notes) <= SHOWN_NOTES:
            self.notes.append(text if len(self.notes) < SHOWN_NOTES else "...")

    def stop(self, text: str) -> None:
        """A bound was reached."""
        self.complete = False
        self.note(text)


def walk(models: ModelsRoot, below: PurePosixPath, bounds: ScanBounds) -> Tree:
    """Every file that may be a model or a part of one.

    Raises:
        GgufError: the folder itself is refused or not there.
    """
    tree = Tree()
    with models.open_folder(below) as descriptor:
        _Walker(models, bounds, tree).folder(descriptor, below, 0)
    tree.files.sort(key=lambda file: file.path)
    return tree


class _Walker:
    def __init__(self, models: ModelsRoot, bounds: ScanBounds, tree: Tree) -> None:
        self._models = models
        self._bounds = bounds
        self._tree = tree
        self._deadline = time.monotonic() + bounds.time_s

    def folder(self, descriptor: int, path: PurePosixPath, depth: int) -> None:
        for entry in self._entries(descriptor, path):
            if not _can_be_named(entry.name):
                self._tree.note(f"left out, since its name cannot be printed: {str(path / entry.name)!a}")
            elif entry.name.startswith("."):
                self._hidden(entry.name, path)
            elif entry.is_dir(follow_symlinks=False):
                self._sub_folder(descriptor, entry.name, path / entry.name, depth + 1)
            elif is_of_interest(entry.name):
                self._file(entry, path / entry.name)

    def _entries(self, descriptor: int, path: PurePosixPath) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    self._tree.entries += 1
                    if self._tree.entries > self._bounds.entries:
                        self._tree.stop(f"only the first {self._bounds.entries} entries were looked at")
                        return
                    if time.monotonic() > self._deadline:
                        self._tree.stop(f"the directory could not be read within {self._bounds.time_s:g} s")
                        return
                    yield entry
        except OSError as error:
            self._tree.stop(f"{path} cannot be read: {os.strerror(error.errno or 0)}")

    def _hidden(self, name: str, path: PurePosixPath) -> None:
        if name.endswith(JOURNAL):
            target = path / name[1 : -len(JOURNAL)]
            self._tree.note(f"a merge into {target} is under way or was interrupted: asked for again, it goes on")

    def _sub_folder(self, parent: int, name: str, path: PurePosixPath, depth: int) -> None:
        if depth > self._bounds.depth:
            self._tree.stop(f"folders deeper than {self._bounds.depth} levels were not looked at")
            return
        try:
            descriptor = os.open(name, _OPEN_FOLDER, dir_fd=parent)
        except OSError as error:
            self._tree.stop(f"{path} cannot be read: {os.strerror(error.errno or 0)}")
            return
        try:
            self.folder(descriptor, path, depth)
        finally:
            os.close(descriptor)

    def _file(self, entry: os.DirEntry[str], path: PurePosixPath) -> None:
        try:
            if entry.is_symlink():
                with self._models.open_file(path) as descriptor:
                    found = os.fstat(descriptor)
            else:
                found = entry.stat(follow_symlinks=False)
        except GgufError as error:
            self._tree.note(f"{path}: {error.message}")
            return
        except OSError:
            return  # gone meanwhile
        if stat.S_ISREG(found.st_mode):
            self._tree.files.append(FoundFile(path, found.st_size, found.st_mtime_ns, found.st_ino))
        else:
            self._tree.note(f"{path} is no regular file")


def is_of_interest(name: str) -> bool:
    """True for names that models and their parts have."""
    lower = name.lower()
    return lower.endswith(SUFFIXES) or lower in NAMED or ".gguf." in lower or ".gguf-split-" in lower


def _can_be_named(name: str) -> bool:
    with suppress(UnicodeEncodeError):
        name.encode()
        return name.isprintable()
    return False
