"""The measurements: what is run against a proxy, and what is kept of it."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .proxies import Proxy
from .world import Cores, Tools

RUNS: Mapping[str, Sequence[str]] = {
    "busy": ("-c", "64"),
    "busy16": ("-c", "16"),
    "alone": ("-c", "1"),
    "stream": ("-c", "64", "-s", "50", "-i", "10"),
    "flood": ("-c", "64", "-s", "256", "-i", "0"),
}
WARM_UP_S = {"stream": 1.2, "flood": 0.8}
PRIORITY = 5
RATES = (250, 500, 1000, 2000, 4000, 6000, 8000, 12000, 16000, 20000, 30000)


@dataclass(frozen=True)
class Rig:
    """What every measurement needs."""

    cores: Cores
    tools: Tools
    seconds: float
    helpers: Callable[[], Sequence[int]]
    """Processes that a proxy depends on: engines, NATS."""
    realtime: bool = False

    def run(self, proxy: Proxy, name: str) -> dict[str, Any]:
        """One closed-loop measurement."""
        return self.load(proxy, [*RUNS[name], "-d", str(self.seconds), "-w", str(WARM_UP_S.get(name, 0.5))])

    def rate(self, proxy: Proxy, rate: int) -> dict[str, Any]:
        """Latency at a constant rate of requests."""
        return self.load(proxy, ["-c", "256", "-r", str(rate), "-d", str(self.seconds), "-w", "0.5"])

    def idle(self, proxy: Proxy, streams: int) -> dict[str, Any]:
        """Memory with that many streams open, each with one event in four seconds."""
        opening = streams * 0.0004 + 6
        arguments = ["-H", "-c", str(streams), "-s", "1000", "-i", "4000", "-w", str(opening), "-d", "6"]
        return self.load(proxy, arguments)

    def load(self, proxy: Proxy, arguments: Sequence[str]) -> dict[str, Any]:
        pids = ",".join(map(str, proxy.pids))
        command = [self.tools.load, "-p", str(proxy.port), "-k", proxy.api_key, "-P", pids, *arguments]
        before = self.spin_ms()
        pinned = self.cores.pin(command, self.cores.others)
        with self._ahead_of_others(proxy):
            prefix = ["chrt", "-r", str(PRIORITY)] if self.realtime else []
            done = subprocess.run([*prefix, *pinned], capture_output=True, text=True, check=True, timeout=300)
        outcome: dict[str, Any] = json.loads(done.stdout)
        outcome["spin_ms"] = round((before + self.spin_ms()) / 2, 3)
        return outcome

    @contextlib.contextmanager
    def _ahead_of_others(self, proxy: Proxy) -> Iterator[None]:
        """With `realtime`, whatever else this machine does waits while it is measured."""
        if not self.realtime:
            yield
            return
        pids = [*proxy.pids, *self.helpers()]
        schedule(pids, os.SCHED_RR, PRIORITY)
        try:
            yield
        finally:
            schedule(pids, os.SCHED_OTHER, 0)

    def spin_ms(self) -> float:
        """How long a fixed piece of work takes on the proxy's core: the noise of the machine."""
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.cores.proxy})
        try:
            times: list[float] = []
            for _ in range(5):
                began = time.perf_counter()
                for _ in range(20_000):
                    pass
                times.append(time.perf_counter() - began)
            return statistics.median(times) * 1000
        finally:
            os.sched_setaffinity(0, mine)


def schedule(pids: Sequence[int], policy: int, priority: int) -> None:
    """Set how all threads of the processes are scheduled."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))


def median_of(outcomes: Sequence[Mapping[str, Any]], field: str) -> float:
    return float(statistics.median(outcome[field] for outcome in outcomes)) if outcomes else math.nan


def best_of(outcomes: Sequence[Mapping[str, Any]], field: str, *, most: bool) -> float:
    return float((max if most else min)(outcome[field] for outcome in outcomes)) if outcomes else math.nan
