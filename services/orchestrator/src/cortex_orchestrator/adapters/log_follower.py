"""Reads the log file of an engine process while the shim writes and rotates it."""

import codecs
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from cortex_orchestrator.adapters import shim
from cortex_orchestrator.adapters.log_lines import LineSplitter
from cortex_orchestrator.adapters.replica_folder import ReplicaFolder
from cortex_orchestrator.domain.observed import Phase

READ_BYTES = 256 * 1024
HISTORY_BYTES = 2 * 1024 * 1024


class LogFollower:
    """Blocking calls on small local reads. Follows one run of the engine: a new one in the same folder ends it."""

    def __init__(self, folder: ReplicaFolder) -> None:
        self._folder = folder
        self._path = folder.path / shim.LOG
        self._stream: BinaryIO | None = None
        self._lines = LineSplitter()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._incarnation: object = None
        self._ended = False

    def begin(self, tail: int) -> Sequence[str]:
        """The last lines; `read` goes on exactly behind them."""
        launch = self._folder.launch()
        if launch is None:
            self._ended = True
            return ()
        self._incarnation = launch.get("incarnation")
        self._stream = _open(self._path)
        present = b"" if self._stream is None else _last_of(self._stream, HISTORY_BYTES)
        before = b""
        if present.count(b"\n") < tail:
            before = _last(self._path.with_name(self._path.name + ".1"), HISTORY_BYTES - len(present))
        lines = self._feed(before + present)
        return lines[-tail:] if tail else ()

    def read(self) -> Sequence[str] | None:
        """Lines that were written since; empty when there are none yet, None when no more will come."""
        if self._ended:
            return None
        over = self._is_over()  # judged before the read: the shim writes everything before it says that it ended
        data = self._next()
        if data:
            return self._feed(data)
        if not over:
            return ()
        self._ended = True
        return self._lines.flush() or None

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _feed(self, data: bytes) -> tuple[str, ...]:
        return self._lines.feed(self._decoder.decode(data))

    def _next(self) -> bytes:
        data = b"" if self._stream is None else self._stream.read(READ_BYTES)
        if data or not self._was_replaced():
            return data
        self.close()
        self._stream = _open(self._path)
        return b"" if self._stream is None else self._stream.read(READ_BYTES)

    def _was_replaced(self) -> bool:
        """Whether another file has the log's name now. What was written to the old one has been read by then."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        if self._stream is None:
            return True
        mine = os.fstat(self._stream.fileno())
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)

    def _is_over(self) -> bool:
        launch = self._folder.launch()
        if launch is None or launch.get("incarnation") != self._incarnation:
            return True
        seen = self._folder.observe()
        return seen is None or seen.phase is Phase.EXITED


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _last_of(stream: BinaryIO, limit: int) -> bytes:
    """The end of an open file; it is read to its end then."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - limit))
    return stream.read(limit)


def _last(path: Path, limit: int) -> bytes:
    stream = _open(path) if limit > 0 else None
    if stream is None:
        return b""
    with stream:
        return _last_of(stream, limit)
