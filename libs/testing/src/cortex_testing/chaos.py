"""Models started, stopped and changed in random order while engines and services are killed: desire must win in the end."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cortex_testing.stack import Stack, eventually

FILE = "chaos.gguf"
SMALL: dict[str, Any] = {
    "engine_type": "llamacpp",
    "local_path": FILE,
    "context_size": 256,
    "parallel_slots": 1,
    "threads": 1,
    "cache_ram_mib": 0,
    "skip_warmup": True,
    "stop_timeout_s": 10,
}
KILLED = ("orchestrator", "health", "gguf-inspector")


@dataclass
class Outcome:
    """What was done, and how long reality took to agree afterwards."""

    acts: Counter[str] = field(default_factory=Counter[str])
    running: int = 0
    converged_s: float = 0.0


class Chaos:
    """Seeded: the same seed gives the same acts, though not the same timing."""

    def __init__(self, stack: Stack, gguf: Path, *, models: int, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._names = [f"chaos-{number}" for number in range(models)]
        self._desired: dict[str, bool] = {}
        self._outcome = Outcome()
        stack.add_gguf(gguf, FILE)

    def run(self, seconds: float, *, pause_s: float, settle_s: float) -> Outcome:
        """Act for so long, then wait until there is exactly what is desired.

        Raises:
            AssertionError: reality and desire differ after `settle_s`.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            act = self._random.choices(
                [self._start, self._stop, self._change, self._kill_engine, self._kill_service], [8, 5, 2, 3, 1]
            )[0]
            act()
            time.sleep(self._random.uniform(0, 2 * pause_s))
        began = time.monotonic()
        try:
            eventually(lambda: not self.differences(), timeout=settle_s, interval=1.0)
        except AssertionError:
            raise AssertionError("\n".join(self.differences()) + "\n" + self._stack.tail()) from None
        self._outcome.converged_s = time.monotonic() - began
        self._outcome.running = sum(self._desired.values())
        return self._outcome

    def clean(self) -> None:
        """Stop and delete every model."""
        for name in self._desired:
            self._stack.admin("POST", f"/admin/models/{name}/stop")
        eventually(lambda: not self._engines(), timeout=120, interval=1.0)
        for name in self._desired:
            self._stack.admin("DELETE", f"/admin/models/{name}")

    def differences(self) -> list[str]:
        """In words; empty when reality is what is desired."""
        engines = Counter(name for _, name in self._engines())
        found: list[str] = []
        for name, wanted in self._desired.items():
            state = self._stack.model(name)["state"]
            expected = "running" if wanted else "stopped"
            if state != expected or engines[name] != int(wanted):
                found.append(f"{name}: {state} with {engines[name]} engines, wanted {expected}")
        return found + [f"an engine of {name}, which nobody wants" for name in engines if name not in self._desired]

    def _engines(self) -> list[tuple[psutil.Process, str]]:
        named: list[tuple[psutil.Process, str]] = []
        for engine in self._stack.engines():
            words = engine.info["cmdline"]
            if any(word.endswith(FILE) for word in words) and "--alias" in words:
                named.append((engine, words[words.index("--alias") + 1]))
        return named

    def _start(self) -> None:
        name = self._random.choice(self._names)
        if name not in self._desired:
            if not self._done("create", self._stack.admin("POST", "/admin/models", SMALL | {"name": name})):
                return
            self._desired[name] = False
        if self._done("start", self._stack.admin("POST", f"/admin/models/{name}/start")):
            self._desired[name] = True

    def _stop(self) -> None:
        name = self._pick()
        if name is not None and self._done("stop", self._stack.admin("POST", f"/admin/models/{name}/stop")):
            self._desired[name] = False

    def _change(self) -> None:
        name = self._pick()
        if name is not None:
            size = self._random.choice([256, 512, 768])
            self._done("change", self._stack.admin("PATCH", f"/admin/models/{name}", {"context_size": size}))

    def _kill_engine(self) -> None:
        engines = sorted(self._engines(), key=lambda pair: pair[1])
        if engines:
            engine, _ = self._random.choice(engines)
            try:
                engine.kill()
            except psutil.NoSuchProcess:
                return
            self._outcome.acts["kill engine"] += 1

    def _kill_service(self) -> None:
        name = self._random.choice(KILLED)
        try:
            self._stack.kill(name)
        except (AssertionError, psutil.NoSuchProcess):
            return  # it is being restarted already
        self._outcome.acts[f"kill {name}"] += 1

    def _pick(self) -> str | None:
        return self._random.choice(sorted(self._desired)) if self._desired else None

    def _done(self, act: str, response: Any) -> bool:
        """False when the answer is to try again: a service that was killed is not back yet."""
        if response.status_code == 503:
            self._outcome.acts["try again"] += 1
            return False
        assert response.status_code < 300, f"{act}: {response.status_code} {response.text}"
        self._outcome.acts[act] += 1
        return True
