"""One `cortex up` per home: a lock the kernel releases when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cortex_cli.errors import StackError
from cortex_cli.stack.files import PRIVATE_FILE


@contextmanager
def hold(path: Path) -> Generator[None]:
    """Hold the lock while the body runs; the file carries our process id for `holder`.

    Raises:
        StackError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        if not _try_lock(descriptor):
            pid = _read_pid(descriptor)
            raise StackError(
                f"Cortex already runs on {path.parent} (process {pid or 'unknown'}).",
                fix="use it (`cortex status`), stop it (`cortex down`), or choose another --home",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Process id of whoever holds the lock; None when it is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(descriptor) else _read_pid(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
