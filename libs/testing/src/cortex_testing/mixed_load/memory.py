"""Resident memory of processes over time, and how fast it grows."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

Sample = tuple[float, float]
"""Seconds since the start, MB."""
MB = 1024 * 1024


@dataclass
class MemoryWatch:
    """Samples what `find` names, until cancelled."""

    find: Mapping[str, Callable[[], psutil.Process | None]]
    every_s: float
    samples: dict[str, list[Sample]] = field(default_factory=dict[str, list[Sample]])
    began: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """For ever."""
        found: dict[str, psutil.Process] = {}
        while True:
            for name, find in self.find.items():
                if name not in found or not found[name].is_running():
                    process = find()
                    if process is None:
                        continue
                    found[name] = process
                self._take(name, found[name])
            await asyncio.sleep(self.every_s)

    def _take(self, name: str, process: psutil.Process) -> None:
        try:
            size = process.memory_info().rss / MB
        except psutil.NoSuchProcess:
            return
        if size:  # of one that has ended and was not waited for there is nothing left
            self.samples.setdefault(name, []).append((time.monotonic() - self.began, size))


def slope_per_hour(samples: Sequence[Sample]) -> float:
    """MB per hour by linear regression over the last two thirds of the time; 0 for less than two samples."""
    if len(samples) < 2:
        return 0.0
    start, end = samples[0][0], samples[-1][0]
    kept = [sample for sample in samples if sample[0] >= start + (end - start) / 3]
    mean_at = sum(at for at, _ in kept) / len(kept)
    mean_size = sum(size for _, size in kept) / len(kept)
    spread = sum((at - mean_at) ** 2 for at, _ in kept)
    if not spread:
        return 0.0
    return 3600 * sum((at - mean_at) * (size - mean_size) for at, size in kept) / spread
