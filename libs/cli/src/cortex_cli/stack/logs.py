"""Log files with a bounded size."""

import shutil
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Before a start: move a large log aside (one older file is kept)."""
    if _size(path) > max_bytes:
        path.replace(_older(path))


def cut(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """While its process writes: copy a large log aside and empty it. The writer appends, so it goes on from the start."""
    if _size(path) > max_bytes:
        shutil.copyfile(path, _older(path))
        with path.open("r+b") as file:
            file.truncate(0)


def tail(path: Path, lines: int = 12) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
