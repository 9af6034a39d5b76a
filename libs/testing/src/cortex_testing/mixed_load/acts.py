"""What is done to the stack meanwhile: seeded, each act once before any is repeated."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from cortex_testing.services import ServiceProcess
from cortex_testing.stack import Stack

DOWN_S = (2.0, 8.0)


@dataclass
class Disturber:
    """Kills, holds down, freezes and restarts parts of a stack.

    Args:
        files: names of the model files whose engines may die.
        second: the gateway that is restarted in good order; the first one runs through.
    """

    stack: Stack
    files: Sequence[str]
    second: ServiceProcess
    seed: int
    acts: Counter[str] = field(default_factory=Counter[str])
    log: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When (monotonic) what began."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def run(self, until: float, pause_s: float) -> None:
        """Act until the monotonic clock says so; blocks. What was held down is up again, or on its way, afterwards."""
        acts = self._all()
        # What matters most comes first in a short run.
        names = [*acts]
        weights = [weight for weight, _ in acts.values()]
        todo = sorted(names, key=lambda name: self._random.random() / acts[name][0])
        while time.monotonic() < until:
            name = todo.pop(0) if todo else self._random.choices(names, weights)[0]
            self.acts[name] += 1
            self.log.append((time.monotonic(), name))
            acts[name][1]()
            time.sleep(min(self._random.uniform(0.5, 1.5) * pause_s, max(0.0, until - time.monotonic())))

    def _all(self) -> dict[str, tuple[int, Callable[[], object]]]:
        return {
            "replica killed": (8, self._kill_replica),
            "all replicas of a model killed": (1, self._kill_model),
            "NATS killed": (2, lambda: self._kill("nats")),
            "NATS stopped": (1, lambda: self._terminate("nats")),
            "NATS down": (2, lambda: self._hold_down("nats")),
            "NATS frozen": (1, lambda: self._freeze("nats")),
            "registry and Postgres down": (2, lambda: self._hold_down("registry", "postgres")),
            "Postgres frozen": (1, lambda: self._freeze("postgres")),
            "NATS, registry and Postgres down": (2, lambda: self._hold_down("nats", "registry", "postgres")),
            "orchestrator and health killed": (1, lambda: self._kill("orchestrator", "health")),
            "gateway restarted": (2, self._restart_second),
        }

    def _engines(self) -> list[tuple[str, psutil.Process]]:
        """By file."""
        return sorted(
            (
                (file, engine)
                for engine in self.stack.engines()
                for file in self.files
                if any(word.endswith(f"/{file}") for word in engine.info["cmdline"])
            ),
            key=lambda pair: (pair[0], pair[1].pid),
        )

    def _kill_replica(self) -> None:
        if engines := self._engines():
            _end(self._random.choice(engines)[1])

    def _kill_model(self) -> None:
        chosen = self._random.choice(self.files)
        for file, engine in self._engines():
            if file == chosen:
                _end(engine)

    def _kill(self, *names: str) -> None:
        for name in names:
            try:
                self.stack.kill(name)
            except (AssertionError, psutil.NoSuchProcess):
                continue  # it is being restarted already

    def _terminate(self, name: str) -> None:
        try:
            self.stack.program(name).terminate()
        except (AssertionError, psutil.NoSuchProcess):
            return

    def _hold_down(self, *names: str) -> None:
        with self.stack.down(*names):
            time.sleep(self._random.uniform(*DOWN_S))

    def _freeze(self, name: str) -> None:
        try:
            with self.stack.frozen(name):
                time.sleep(self._random.uniform(*DOWN_S))
        except (AssertionError, psutil.NoSuchProcess):
            return

    def _restart_second(self) -> None:
        self.second.stop()
        self.second.start()


def _end(engine: psutil.Process) -> None:
    try:
        engine.kill()
    except psutil.NoSuchProcess:
        return
