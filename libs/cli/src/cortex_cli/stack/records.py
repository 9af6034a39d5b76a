"""Records of running processes, so that the next run finds what a killed one left behind."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cortex_cli.stack.files import write_private

_SAME_START_S = 0.5
"""The kernel's clock ticks: two readings of one process's start time differ by less."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """A process by id and start time, so that a reused id is never mistaken for it."""

    name: str
    pid: int
    started: float


class ProcessRecords:
    """One file per process in the home folder; written by the supervisor only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, pid: int) -> None:
        """Record a process that was just started; one that is gone already leaves no record."""
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        write_private(self._file(name), json.dumps(asdict(Record(name, pid, started))))

    def remove(self, name: str) -> None:
        """Forget a process that has ended."""
        self._file(name).unlink(missing_ok=True)

    def living(self) -> list[Record]:
        """The recorded processes that still run."""
        return [record for file in sorted(self._folder.glob("*.json")) if (record := _read(file)) and is_alive(record)]

    def clear(self) -> None:
        """Forget every process."""
        for file in self._folder.glob("*.json"):
            file.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def is_alive(record: Record) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.started) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def end(records: Iterable[Record], signals: Iterable[tuple[int, float]]) -> list[Record]:
    """Signal the processes, step by step, until they are gone; returns those that live on.

    Args:
        records: what to end.
        signals: (signal, seconds to wait for its effect), gentlest first.
    """
    left = [record for record in records if is_alive(record)]
    for number, patience_s in signals:
        for record in left:
            _signal(record, number)
        left = await _wait_gone(left, patience_s)
        if not left:
            break
    return left


def _signal(record: Record, number: int) -> None:
    try:
        psutil.Process(record.pid).send_signal(number)
    except psutil.NoSuchProcess:
        return


async def _wait_gone(records: list[Record], patience_s: float) -> list[Record]:
    deadline = asyncio.get_running_loop().time() + patience_s
    left = [record for record in records if is_alive(record)]
    while left and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_S)
        left = [record for record in left if is_alive(record)]
    return left


def _read(file: Path) -> Record | None:
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
