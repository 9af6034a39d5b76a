"""Models created, started, stopped, changed and deleted in random order while engines and services are killed: desire must win."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
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
SIZES = (256, 512, 768)
KILLED = ("orchestrator", "health", "gguf-inspector", "registry", "gateway", "nats", "postgres")
REFUSED = 409


@dataclass
class Outcome:
    """What was done, and how long reality took to agree afterwards."""

    acts: Counter[str] = field(default_factory=Counter[str])
    models: int = 0
    running: int = 0
    answered: int = 0
    converged_s: float = 0.0


@dataclass
class Wish:
    """What was asked of a model and acknowledged; None where the answer got lost, so that nobody knows."""

    exists: bool | None = False
    running: bool | None = False
    context_size: int | None = SIZES[0]


class Chaos:
    """Seeded: the same seed gives the same acts, though not the same timing."""

    def __init__(self, stack: Stack, gguf: Path, *, models: int, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._wishes = {f"chaos-{number}": Wish() for number in range(models)}
        self._outcome = Outcome()
        stack.add_gguf(gguf, FILE)

    def run(self, seconds: float, *, pause_s: float, settle_s: float) -> Outcome:
        """Act for so long, then wait until there is exactly what is desired, and ask every running model something.

        Raises:
            AssertionError: an acknowledged wish was lost, or reality and desire differ after `settle_s`, or a model that
                is said to run does not answer.
        """
        acts = [self._start, self._stop, self._change, self._delete, self._kill_engine, self._kill_service]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._random.choices(acts, [8, 5, 2, 1, 3, 2])[0]()
            time.sleep(self._random.uniform(0, 2 * pause_s))
        began = time.monotonic()
        try:
            eventually(lambda: not self.differences(), timeout=settle_s, interval=1.0)
        except AssertionError:
            raise AssertionError("\n".join(self.differences()) + "\n" + self._stack.tail()) from None
        self._outcome.converged_s = time.monotonic() - began
        wanted = [name for name, wish in self._wishes.items() if wish.exists and wish.running]
        self._outcome.models = sum(bool(wish.exists) for wish in self._wishes.values())
        self._outcome.running = len(wanted)
        eventually(
            lambda: self._stack.ask(wanted[0]) if wanted else True, timeout=settle_s
        )  # a gateway killed last comes back
        for name in wanted:
            self._stack.ask(name, max_tokens=2)
            self._outcome.answered += 1
        return self._outcome

    def clean(self) -> None:
        """Delete every model; their engines go."""
        for name in self._models():
            self._stack.admin("DELETE", f"/admin/models/{name}").raise_for_status()
        eventually(lambda: not self._engines(), timeout=120, interval=1.0)

    def differences(self) -> list[str]:
        """In words; empty when reality is what is desired.

        Compared are the wishes with what the registry keeps (an acknowledged one must not be lost), what it says that runs, and
        the processes of this machine: one for each model that shall run, with the configuration of its last change, and no other.
        """
        stored = self._models()
        engines: dict[str, list[int]] = {}
        for process, name in self._engines():
            words = process.info["cmdline"]
            engines.setdefault(name, []).append(int(words[words.index("--ctx-size") + 1]))
        found: list[str] = []
        for name, wish in self._wishes.items():
            self._settle(wish, stored.get(name))
            found += [f"{name}: {problem}" for problem in _problems(wish, stored.get(name), engines.pop(name, []))]
        return found + [f"an engine of {name}, which nobody wants" for name in engines]

    def _settle(self, wish: Wish, stored: dict[str, Any] | None) -> None:
        """Where an answer got lost, the registry's word counts."""
        if wish.exists is None:
            wish.exists = stored is not None
        if stored is not None and wish.running is None:
            wish.running = stored["desired_state"] == "running"
        if stored is not None and wish.context_size is None:
            wish.context_size = stored["context_size"]

    def _models(self) -> dict[str, dict[str, Any]]:
        response = self._stack.admin("GET", "/admin/models")
        response.raise_for_status()
        return {model["name"]: model for model in response.json()["items"] if model["name"] in self._wishes}

    def _engines(self) -> list[tuple[psutil.Process, str]]:
        named: list[tuple[psutil.Process, str]] = []
        for engine in self._stack.engines():
            words = engine.info["cmdline"]
            if any(word.endswith(FILE) for word in words) and "--alias" in words:
                named.append((engine, words[words.index("--alias") + 1]))
        return named

    def _start(self) -> None:
        name = self._random.choice(sorted(self._wishes))
        wish = self._wishes[name]
        if not wish.exists:
            status = self._ask("create", "POST", "/admin/models", SMALL | {"name": name})
            # 409: the creation whose answer got lost did happen.
            if status is None or (status == REFUSED and wish.exists is False):
                assert status is None, f"{name} is there, though it was deleted or never made"
                wish.exists = None
                return
            if status != REFUSED:
                wish.running, wish.context_size = False, SIZES[0]
            wish.exists = True
        wish.running = True if self._ask("start", "POST", f"/admin/models/{name}/start") else None

    def _stop(self) -> None:
        if (name := self._pick()) is not None:
            done = self._ask("stop", "POST", f"/admin/models/{name}/stop")
            self._wishes[name].running = False if done else None

    def _change(self) -> None:
        if (name := self._pick()) is not None:
            size = self._random.choice(SIZES)
            done = self._ask("change", "PATCH", f"/admin/models/{name}", {"context_size": size})
            self._wishes[name].context_size = size if done else None

    def _delete(self) -> None:
        if (name := self._pick()) is not None:
            done = self._ask("delete", "DELETE", f"/admin/models/{name}")
            self._wishes[name].exists = False if done else None

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
        """A model that is there for certain."""
        there = sorted(name for name, wish in self._wishes.items() if wish.exists)
        return self._random.choice(there) if there else None

    def _ask(self, act: str, method: str, path: str, body: Any = None) -> int | None:
        """The status; None when nobody knows whether it was done: a service that it takes was killed meanwhile."""
        try:
            response = self._stack.admin(method, path, body)
        except httpx.TransportError:
            response = None
        if response is None or response.status_code == 503:
            self._outcome.acts["unanswered"] += 1
            return None
        assert response.status_code < 300 or (act == "create" and response.status_code == REFUSED), (
            f"{act}: {response.status_code} {response.text}"
        )
        self._outcome.acts[act] += 1
        return response.status_code


def _problems(wish: Wish, stored: dict[str, Any] | None, engines: list[int]) -> list[str]:
    """Of one model: what is not as desired. `engines` are the context sizes of its processes."""
    if stored is None or not wish.exists:
        problems = ["its engines are still there"] if engines else []
        return problems if wish.exists == (stored is not None) else [*problems, f"exists: {stored is not None}"]
    expected = "running" if wish.running else "stopped"
    wanted = [wish.context_size] * bool(wish.running)
    compared = {
        "desired": (stored["desired_state"], expected),
        "context size": (stored["context_size"], wish.context_size),
        "state": (stored["state"], expected),
        "replicas": (len(stored["replica_status"]), len(wanted)),
        "engines by context size": (engines, wanted),
    }
    return [f"{name} {is_} instead of {shall}" for name, (is_, shall) in compared.items() if is_ != shall]
