"""Backups on disk: folders below one root, made aside and put in place whole, checked before they are believed."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from cortex_kit.errors import DomainError
from cortex_registry.domain.deployment import FileEntry, Manifest, damaged, valid_folder
from cortex_registry.errors import UnavailableError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
FORMAT = "cortex.backup"
VERSION = 1
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_BACKUPS = 1000
CHUNK = 1024 * 1024
COMPRESSION = 3
LOOK_S = 20.0
"""Longest time for a look at the folder."""
PARTIAL = ".partial-"
ABANDONED_S = 24 * 3600.0
_MANIFEST = TypeAdapter(Manifest)
ResultT = TypeVar("ResultT")


class Hashed(Protocol):
    """A checksum that grows."""

    def update(self, data: bytes, /) -> None: ...


class ExportRoot:
    """The folder below which backups lie; None where there is none."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @property
    def root(self) -> Path | None:
        return self._root

    def require(self) -> Path:
        """The folder. Raises DomainError 409 `export_dir_unset`."""
        if self._root is None:
            message = "There is no folder for backups: set CORTEX_EXPORT_DIR and start the registry again."
            raise DomainError("export_dir_unset", message, status=409, details={"setting": "CORTEX_EXPORT_DIR"})
        return self._root

    async def problem(self) -> str | None:
        """Why backups cannot be written, or None. Writes nothing."""
        root = self._root
        if root is None:
            return "CORTEX_EXPORT_DIR is not set"
        return await _looked(lambda: _unwritable(root))

    async def free_bytes(self) -> int | None:
        """Free room of the disk; None when it cannot be told."""
        root = self._root
        return None if root is None else await _looked(lambda: _free(root))

    async def names(self) -> Sequence[str]:
        """Folders that hold a manifest, the newest first, a thousand at most."""
        root = self._root
        return [] if root is None else await _looked(lambda: _names(root))

    async def exists(self, folder: str) -> bool:
        """Whether the name is taken."""
        path = self.require() / valid_folder(folder)
        return await _looked(lambda: path.exists() or path.is_symlink())

    async def manifest(self, folder: str) -> Manifest:
        """What a backup says of itself.

        Raises:
            DomainError: 404 `backup_not_found`, 422 `damaged_backup`, 409 `export_dir_unset`.
        """
        path = self.require() / valid_folder(folder)
        return await _looked(lambda: _read_manifest(path, folder))

    async def text(self, folder: str, name: str, most: int) -> bytes:
        """A small file of a backup. Raises DomainError as `manifest`."""
        path = self.require() / valid_folder(folder) / name
        return await _looked(lambda: _small(path, most))

    async def verify(self, manifest: Manifest, advance: Callable[[str, int], None]) -> None:
        """Read every file of the database and hold it against its checksum; raises DomainError 422 `damaged_backup`."""
        folder = self.require() / valid_folder(manifest.folder)
        for entry in manifest.files:
            if not entry.path.startswith("database/"):
                continue
            size, digest = await _threaded(lambda entry=entry: _measured(folder / entry.path))
            if (size, digest) != (entry.bytes, entry.sha256):
                raise damaged(f"{entry.path} is not what the manifest says")
            advance(f"checking {entry.path}", size)

    async def rows(self, folder: str, name: str, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
        """The content of a compressed file, piece by piece."""
        path = self.require() / valid_folder(folder) / name
        try:
            stream = await asyncio.to_thread(gzip.open, path, "rb")
            try:
                while chunk := await asyncio.to_thread(stream.read, CHUNK):
                    advance(len(chunk))
                    yield bytes(chunk)
            finally:
                await asyncio.shield(asyncio.to_thread(stream.close))
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(f"{name} cannot be read ({error})") from error

    @contextlib.asynccontextmanager
    async def staging(self, folder: str, job_id: str) -> AsyncGenerator["Staging"]:
        """A backup in the making; what was not published when the body ends is deleted."""
        root = self.require()
        staging = Staging(root, valid_folder(folder), job_id)
        await _threaded(staging.prepare)
        try:
            yield staging
        finally:
            await asyncio.shield(asyncio.to_thread(staging.discard))


class Staging:
    """A folder aside. Everything in it is on disk, with its checksum, before it is put in place."""

    def __init__(self, root: Path, folder: str, job_id: str) -> None:
        self._root = root
        self._folder = folder
        self._path = root / f"{PARTIAL}{job_id}"
        self.files: list[FileEntry] = []

    def prepare(self) -> None:
        """Make it, empty; delete what registries that died long ago have left. Blocking."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._root.glob(f"{PARTIAL}*"):
            if left == self._path or time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
        self._path.mkdir(mode=0o700)

    def discard(self) -> None:
        """Delete it; nothing happens once it was published. Blocking."""
        shutil.rmtree(self._path, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def compressed(self, name: str) -> AsyncGenerator["CompressedFile"]:
        """A file whose content is compressed as it comes."""
        path = await _threaded(lambda: self._place(name))
        file = CompressedFile(path)
        await _threaded(file.open)
        try:
            yield file
        except BaseException:
            await asyncio.shield(asyncio.to_thread(file.abandon))
            raise
        size, digest = await _threaded(file.finish)
        self.files.append(FileEntry(name, size, digest))

    async def write(self, name: str, content: bytes) -> None:
        """A small file."""
        path = await _threaded(lambda: self._place(name))
        await _threaded(lambda: _written(path, content))
        self.files.append(FileEntry(name, len(content), hashlib.sha256(content).hexdigest()))

    async def take(self, source: Path, name: str, advance: Callable[[int], None]) -> None:
        """Copy a file, however large."""
        path = await _threaded(lambda: self._place(name))
        digest, size = hashlib.sha256(), 0
        streams = await _threaded(lambda: (source.open("rb"), path.open("xb")))
        try:
            while count := await _threaded(lambda: _copied(streams, digest)):
                size += count
                advance(count)
            await _threaded(lambda: _synced(streams[1]))
        finally:
            await asyncio.shield(asyncio.to_thread(lambda: [stream.close() for stream in streams]))
        self.files.append(FileEntry(name, size, digest.hexdigest()))

    async def publish(self, manifest: Manifest) -> None:
        """Write the manifest last, then give the folder its name. Raises DomainError 409 `folder_taken`."""
        document = {"format": FORMAT, "format_version": VERSION, **_MANIFEST.dump_python(manifest, mode="json")}
        await self.write(MANIFEST, json.dumps(document, indent=2).encode() + b"\n")
        sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in self.files)
        await self.write(SUMS, sums.encode())
        await _threaded(self._rename)

    def _rename(self) -> None:
        target = self._root / self._folder
        if target.exists() or target.is_symlink():
            message = f"There is a backup named {self._folder} by now. Choose another name."
            raise DomainError("folder_taken", message, status=409)
        self._path.rename(target)
        _sync_folder(self._root)

    def _place(self, name: str) -> Path:
        path = self._path / name
        if not path.resolve().is_relative_to(self._path.resolve()):
            raise DomainError("invalid_path", f"{name!r} does not lie in the backup.", status=422)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


class CompressedFile:
    """gzip, hashed as it is written; blocks come from one task."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._raw: IO[bytes] | None = None
        self._zip: gzip.GzipFile | None = None

    def open(self) -> None:
        """Blocking."""
        self._raw = self._path.open("x+b")
        self._zip = gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=COMPRESSION, mtime=0)

    async def write(self, data: bytes) -> None:
        """Compresses in a thread once enough has come."""
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            block, self._waiting = bytes(self._waiting), bytearray()
            await _threaded(lambda: self._compress(block))

    def _compress(self, block: bytes) -> None:
        if self._zip is not None:
            self._zip.write(block)

    def finish(self) -> tuple[int, str]:
        """Size and checksum of what lies on the disk. Blocking."""
        self._compress(bytes(self._waiting))
        if self._zip is None or self._raw is None:
            return 0, ""
        self._zip.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        return _measured(self._path)

    def abandon(self) -> None:
        """Blocking."""
        for stream in (self._zip, self._raw):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


async def _threaded(operation: Callable[[], ResultT]) -> ResultT:
    """Run what blocks for as long as a disk takes for a piece; its errors in our words."""
    try:
        return await asyncio.to_thread(operation)
    except OSError as error:
        raise disk_error(error) from error


async def _looked(operation: Callable[[], ResultT]) -> ResultT:
    try:
        async with asyncio.timeout(LOOK_S):
            return await asyncio.to_thread(operation)
    except TimeoutError as error:
        message = "The folder of backups does not answer: a network file system that hangs does this."
        raise UnavailableError("export_dir_unavailable", message) from error
    except OSError as error:
        raise disk_error(error) from error


def disk_error(error: OSError) -> DomainError:
    """A disk that is full, closed or broken."""
    what = error.strerror or type(error).__name__
    where = f" ({Path(str(error.filename)).name})" if error.filename else ""
    return DomainError("export_dir_failed", f"The folder of backups cannot be used: {what}{where}.", status=409)


def _unwritable(root: Path) -> str | None:
    there = next((one for one in (root, *root.parents) if one.exists()), None)
    if there is None or not there.is_dir():
        return f"{root} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{root} cannot be written"


def _free(root: Path) -> int | None:
    there = next((one for one in (root, *root.parents) if one.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    found: list[tuple[float, str]] = []
    for entry in os.scandir(root):
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            found.append((os.stat(Path(entry.path) / MANIFEST).st_mtime, entry.name))
    return [name for _, name in sorted(found, reverse=True)[:MAX_BACKUPS]]


def _read_manifest(path: Path, folder: str) -> Manifest:
    if path.is_symlink() or not (path / MANIFEST).is_file():
        raise DomainError("backup_not_found", f"There is no backup named {folder}.", status=404)
    try:
        document = json.loads(_small(path / MANIFEST, MAX_MANIFEST_BYTES))
        if (
            not isinstance(document, dict)
            or document.get("format") != FORMAT
            or document.get("format_version") != VERSION
        ):
            raise damaged(f"{MANIFEST} is not of format {FORMAT} {VERSION}")
        return _MANIFEST.validate_python({**document, "folder": folder})
    except (ValueError, ValidationError) as error:
        raise damaged(f"{MANIFEST} cannot be read") from error


def _small(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError as error:
        raise DomainError("backup_not_found", f"The backup has no {path.name}.", status=404) from error
    if len(content) > most:
        raise damaged(f"{path.name} is too large")
    return content


def _measured(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
                size += len(block)
    except FileNotFoundError as error:
        raise damaged(f"{path.name} is missing") from error
    return size, digest.hexdigest()


def _copied(streams: tuple[IO[bytes], IO[bytes]], digest: Hashed) -> int:
    block = streams[0].read(4 * CHUNK)
    digest.update(block)
    streams[1].write(block)
    return len(block)


def _synced(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _written(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        shutil.copyfileobj(io.BytesIO(content), stream)
        _synced(stream)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
