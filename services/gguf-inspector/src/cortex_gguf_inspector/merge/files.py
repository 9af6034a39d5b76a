"""The files of a merge beside its target: the growing file, the journal, and the step that gives the file its name.

All names are relative to one open folder, so that nobody can swap the folder meanwhile.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.merge.copy import write_all

RENAME_NOREPLACE = 1
JOURNAL_LIMIT = 64 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


@dataclass(frozen=True, slots=True)
class Journal:
    """How far a merge has come: everything before `done` bytes of the growing file is on the disk."""

    plan: str
    done: int
    total: int


class MergeFiles:
    """The target folder, seen from one merge."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self.name = name
        self._partial = f".{name}.merging"
        self._journal = f".{name}.merging.json"

    @contextmanager
    def growing_file(self) -> Generator[int]:
        """The growing file, created when absent, locked against a second merge into the same target.

        Raises:
            GgufError: `merge_running` when another process holds it.
            OSError: it cannot be created.
        """
        self._drop_finished()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._partial, flags, 0o644, dir_fd=self._folder)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = f"another process is making {self.name} at this moment"
                raise GgufError(GgufErrorCode.MERGE_RUNNING, message) from error
            if not self._is_mine(descriptor):
                raise GgufError(GgufErrorCode.MERGE_RUNNING, f"another process has just finished with {self.name}")
            yield descriptor
        finally:
            os.close(descriptor)

    def _drop_finished(self) -> None:
        """A growing file with a second name was published by a run that was killed right then: it must not be touched."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False).st_nlink > 1:
                self.clean()

    def _is_mine(self, descriptor: int) -> bool:
        """Between opening and locking, the one who held the lock may have given the file its final name."""
        try:
            there = os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor)) and there.st_nlink == 1

    def is_running(self) -> bool:
        """True when a process is at work on this target now."""
        try:
            descriptor = os.open(self._partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def journal(self) -> Journal | None:
        """What an earlier run left; None when there is nothing that can be understood."""
        try:
            descriptor = os.open(self._journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return None
        try:
            told = json.loads(os.pread(descriptor, JOURNAL_LIMIT, 0))
            return Journal(str(told["plan"]), int(told["done"]), int(told["total"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        finally:
            os.close(descriptor)

    def write_journal(self, journal: Journal) -> None:
        """Replace the journal at once. Raises OSError."""
        temporary = f"{self._journal}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o644, dir_fd=self._folder)
        try:
            told = {"plan": journal.plan, "done": journal.done, "total": journal.total}
            write_all(descriptor, json.dumps(told).encode(), 0)
        finally:
            os.close(descriptor)
        os.rename(temporary, self._journal, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def publish(self) -> None:
        """Give the growing file its final name, unless something has it already.

        Raises:
            GgufError: `merge_target_exists`.
            OSError: the file system refuses.
        """
        try:
            os.link(self._partial, self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileExistsError as error:
            raise target_exists(self.name) from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._rename_without_replacing()
        self.clean()
        os.fsync(self._folder)

    def _rename_without_replacing(self) -> None:
        """For file systems without hard links."""
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        one, other = os.fsencode(self._partial), os.fsencode(self.name)
        if rename(self._folder, one, self._folder, other, RENAME_NOREPLACE):
            code = ctypes.get_errno()
            if code == errno.EEXIST:
                raise target_exists(self.name)
            raise OSError(code, os.strerror(code))

    def clean(self) -> None:
        """Remove the journal and the growing file; absence is success."""
        for name in (self._partial, self._journal, f"{self._journal}.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)

    @property
    def free_bytes(self) -> int:
        """What this process may still write into the folder. Raises OSError."""
        system = os.fstatvfs(self._folder)
        return system.f_bavail * system.f_frsize

    @property
    def allocated_bytes(self) -> int:
        """What the growing file already takes of the disk."""
        try:
            return os.stat(self._partial, dir_fd=self._folder, follow_symlinks=False).st_blocks * 512
        except OSError:
            return 0

    def exists(self) -> bool:
        """True when the final name is taken, by whatever."""
        try:
            os.stat(self.name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return True

    @contextmanager
    def finished_file(self) -> Generator[int]:
        """The file that has the final name. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.name, flags, dir_fd=self._folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def target_exists(name: str) -> GgufError:
    """The refusal to replace a file."""
    message = f"{name} is there already and is not what these parts make: remove it, or give another output"
    return GgufError(GgufErrorCode.TARGET_EXISTS, message)
