"""One append-only file of usage records, one JSON document a line. Its owner holds a lock, so that others leave it."""

import fcntl
import os
from pathlib import Path

from cortex_gateway.domain.usage import envelope_id
from cortex_kit.ids import uuid7

PROVISIONAL = b"?"
READ_BYTES = 256 * 1024
_PATTERN = "usage-*.wal"


class Segment:
    """Bytes `0..acknowledged` are known to NATS, `acknowledged..size` are not."""

    __slots__ = ("_fd", "acknowledged", "dirty", "foreign", "holds", "path", "size")

    def __init__(self, path: Path, fd: int, *, foreign: bool) -> None:
        self.path = path
        self._fd = fd
        self.foreign = foreign
        """Left by a process that died: provisional records in it are final now."""
        self.size = os.fstat(fd).st_size
        self.acknowledged = 0
        self.holds = 0
        self.dirty = False

    @classmethod
    def create(cls, directory: Path) -> "Segment":
        """A new, locked, empty segment. Raises OSError."""
        path = directory / f"usage-{uuid7()}.wal"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, fd, foreign=False)

    @classmethod
    def adopt(cls, path: Path) -> "Segment | None":
        """Take over a file whose owner is gone; None when it is alive or the file is."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return None
        return cls(path, fd, foreign=True)

    @property
    def pending(self) -> int:
        return self.size - self.acknowledged

    def write(self, line: bytes) -> None:
        """Append a whole line or nothing. Raises OSError."""
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += written
        self.dirty = True

    def read(self) -> tuple[list[bytes], int]:
        """The next whole lines that NATS does not have, and the offset behind them."""
        data = os.pread(self._fd, READ_BYTES, self.acknowledged)
        end = data.rfind(b"\n") + 1
        if end == 0:
            return [], self.size if self.foreign else self.acknowledged
        return data[: end - 1].split(b"\n"), self.acknowledged + end

    def final_ids(self) -> set[str]:
        """Ids of the records in this file that are not provisional."""
        data = os.pread(self._fd, self.size, 0)
        lines = (line for line in data.split(b"\n") if line and not line.startswith(PROVISIONAL))
        return {found for line in lines if (found := envelope_id(line)) is not None}

    def sync(self) -> None:
        """Force to disk; blocks. Raises OSError."""
        self.dirty = False
        os.fsync(self._fd)

    def clear(self) -> None:
        """Forget everything; NATS has it."""
        os.ftruncate(self._fd, 0)
        self.size = self.acknowledged = 0

    def remove(self) -> None:
        """Delete the file and give up the lock."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def release(self) -> None:
        """Give up the lock; the file stays for whoever comes next."""
        os.close(self._fd)


def list_segments(directory: Path) -> list[Path]:
    """Every segment file, oldest first (their names are time-ordered)."""
    return sorted(directory.glob(_PATTERN))
