"""Opens what a client names below the models root, and nothing else.

The path is resolved (links inside the root are fine, as the Hugging Face cache uses them), must stay under the resolved
root, and is then opened component by component without following links: swapping a folder for a link in between
gains nothing. Special files are never opened for reading, so a FIFO cannot hang us.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode

MAX_PATH_BYTES = 4_096
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OUTSIDE = "the path leads outside the models directory; give a path below it, like 'folder/model.gguf'"


def parse_client_path(path: str) -> PurePosixPath:
    """Normalise a path that a client wrote; `.` is the models root itself.

    Raises:
        GgufError: `invalid_path` for what is no path, `path_outside_models_root` for an absolute one or one with `..`.
    """
    if not path.strip():
        raise GgufError(GgufErrorCode.INVALID_PATH, "the path is empty")
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise GgufError(GgufErrorCode.INVALID_PATH, "the path is not valid Unicode") from error
    if len(encoded) > MAX_PATH_BYTES:
        raise GgufError(GgufErrorCode.INVALID_PATH, f"the path is longer than {MAX_PATH_BYTES} bytes")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in path):
        raise GgufError(GgufErrorCode.INVALID_PATH, "the path contains control characters")
    parsed = PurePosixPath(path)
    if parsed.is_absolute() or ".." in parsed.parts:
        raise GgufError(GgufErrorCode.PATH_OUTSIDE_MODELS_ROOT, _OUTSIDE)
    return parsed


class ModelsRoot:
    """The models directory. Every method blocks on the file system and raises GgufError for what it refuses."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._prefix, self._where = ("/", "") if root == Path("/") else ("", " in the models directory")

    @contextmanager
    def open_file(self, path: PurePosixPath) -> Generator[int]:
        """A descriptor of a regular file below the root, closed on exit."""
        descriptor = self._open(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise GgufError(GgufErrorCode.NOT_A_REGULAR_FILE, f"{self._shown(path)} is a folder, not a file")
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def open_folder(self, path: PurePosixPath) -> Generator[int]:
        """A descriptor of a folder below the root, closed on exit; for work relative to it."""
        descriptor = self._open(path)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise GgufError(GgufErrorCode.NOT_A_REGULAR_FILE, f"{self._shown(path)} is a file, not a folder")
            yield descriptor
        finally:
            os.close(descriptor)

    def is_folder(self, path: PurePosixPath) -> bool:
        """True for a folder, False for a regular file; anything else is refused."""
        descriptor = self._open(path)
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def exists(self, path: PurePosixPath) -> bool:
        """True when something of that name is there, whatever it is; False when it cannot be looked at."""
        return os.path.lexists(self._root / path)

    def names(self, path: PurePosixPath, limit: int) -> list[str]:
        """Names in a folder, without the sub-folders and without names that no client could give."""
        descriptor = self._open(path)
        try:
            with os.scandir(descriptor) as entries:
                found = [entry.name for entry in islice(entries, limit + 1) if not entry.is_dir()]
        except OSError as error:
            raise self._unreadable(path, error) from error
        finally:
            os.close(descriptor)
        if len(found) > limit:
            message = f"{self._shown(path)} holds more than {limit} files: give the path of the model file"
            raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, message)
        return [name for name in found if name.isprintable()]

    def _open(self, path: PurePosixPath) -> int:
        try:
            root = os.path.realpath(self._root, strict=True)
        except OSError as error:
            message = "the models directory is not there or cannot be read"
            raise GgufError(GgufErrorCode.MODELS_DIR_UNAVAILABLE, message) from error
        try:
            real = os.path.realpath(os.path.join(root, path), strict=True)
            if real != root and not real.startswith(os.path.join(root, "")):
                raise GgufError(GgufErrorCode.PATH_OUTSIDE_MODELS_ROOT, _OUTSIDE)
            return _open_beneath(root, Path(real).relative_to(root).parts, self._shown(path))
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: PurePosixPath, error: OSError) -> GgufError:
        shown = self._shown(path)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return GgufError(GgufErrorCode.FILE_NOT_FOUND, f"{shown} does not exist{self._where}")
        if error.errno == errno.ELOOP:
            return GgufError(GgufErrorCode.NOT_A_REGULAR_FILE, f"{shown} is a symbolic link that leads nowhere")
        if error.errno == errno.ENAMETOOLONG:
            return GgufError(GgufErrorCode.INVALID_PATH, "the path is too long for the file system")
        why = os.strerror(error.errno or errno.EIO)
        return GgufError(GgufErrorCode.FILE_UNREADABLE, f"{shown} cannot be read: {why}")

    def _shown(self, path: PurePosixPath) -> str:
        return f"{self._prefix}{path}"


def _open_beneath(root: str, parts: tuple[str, ...], shown: str) -> int:
    """Open step by step; no component may be a link by now. Raises OSError, and GgufError for a special file."""
    current = os.open(root, _OPEN_FOLDER)
    for part in parts:
        parent = current
        try:
            mode = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise GgufError(GgufErrorCode.NOT_A_REGULAR_FILE, f"{shown} is {_kind(mode)}, not a regular file")
            current = os.open(part, _OPEN_FOLDER if stat.S_ISDIR(mode) else _OPEN_FILE, dir_fd=parent)
        finally:
            os.close(parent)
    return current


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a special file"
