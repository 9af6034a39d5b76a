"""What Cortex adds to the start of an engine: from `start` to the first token, minus what the engine itself takes to load.

    python tests/bench/start_overhead.py [--engine llamacpp|vllm] [--runtime process|docker] [--rounds N] [--alone N]

Starts a whole Cortex. Each round stops the model, starts it through the admin API, and asks through the gateway until the first
token comes. The engine's own load time is taken in two ways:

- in the same start: from the birth of its process (the kernel's record of it; in Docker that of the container's first process) to
  the first 200 of its own /health, which is watched directly, past Cortex. This gives the overhead of each round.
- alone: after the rounds Cortex is stopped and the very same command is run without it (process: argv, environment and folder as
  they were; Docker: a container made from the same configuration), again from birth to the first 200. The median of these is
  subtracted from the median until the first token.

What remains is Cortex: reaching the orchestrator, creating the process or the container (with Docker that includes Docker's own
work), noticing that the engine is ready, routing to it, and the first token itself. Docker needs the image of the engine: by
default one that tests/system or tests/bench/vllm_cpu_image.py has built.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from cortex_testing.binaries import tiny_vllm_model, vllm
from cortex_testing.stack import DEMO, Stack, eventually

BODY = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1, "stream": True}
POLL_S = 0.02
DEADLINE_S = 600.0
TINY = "tiny-llama"
IMAGES = {"llamacpp": "cortex/llamacpp-server:system-test", "vllm": "cortex/vllm:cpu-test"}
NETWORK = "cortex-start-overhead"


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds since the call of `start`."""

    born: float
    ready: float
    token: float

    @property
    def load(self) -> float:
        return self.ready - self.born

    @property
    def overhead(self) -> float:
        return self.token - self.load


@dataclass(frozen=True, slots=True)
class Seen:
    """A running engine."""

    pid: int
    health: str


class Engines(Protocol):
    """The engines of a stack, seen from outside of Cortex."""

    def seen(self) -> Seen | None:
        """The engine, once its process lives."""
        ...

    def remember(self) -> None:
        """Keep the command of the engine that runs now."""
        ...

    def alone(self) -> float:
        """Seconds from birth to the first 200 of what was remembered, run without Cortex."""
        ...


def until(attempt: Callable[[], bool]) -> float:
    """The time when it succeeded."""
    deadline = time.time() + DEADLINE_S
    while time.time() < deadline:
        try:
            if attempt():
                return time.time()
        except (httpx.HTTPError, psutil.Error):
            pass
        time.sleep(POLL_S)
    raise AssertionError("not in time")


def born_at(pid: int) -> float:
    """To 10 ms; psutil's time of birth is off by up to a second, because it adds the whole second of the boot."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def healthy(url: str) -> float:
    with httpx.Client(timeout=5) as client:
        return until(lambda: client.get(url).status_code == 200)


class Processes:
    """Engines of the process runtime."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._command: dict[str, Any] = {}

    def seen(self) -> Seen | None:
        """The oldest process that serves a model of this stack."""
        found = [
            process
            for process in psutil.process_iter(["cmdline", "create_time"])
            if "--port" in (words := process.info["cmdline"] or ())
            and any(str(self._stack.models) in word for word in words)
        ]
        if not found:
            return None
        process = min(found, key=lambda process: process.info["create_time"])
        words = process.info["cmdline"]
        return Seen(process.pid, f"http://127.0.0.1:{words[words.index('--port') + 1]}/health")

    def remember(self) -> None:
        if (engine := self.seen()) is not None:
            process = psutil.Process(engine.pid)
            self._command = {"args": process.cmdline(), "env": process.environ(), "cwd": process.cwd()}
            self._health = engine.health

    def alone(self) -> float:
        Path(self._command["cwd"]).mkdir(parents=True, exist_ok=True)  # a stopped engine's folder is removed
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(**self._command, **quiet, start_new_session=True) as process:
            born = born_at(process.pid)
            ready = healthy(self._health)
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        return ready - born


class Containers:
    """Engines of the Docker runtime, by the Engine's API."""

    def __init__(self, stack: Stack) -> None:
        self._models = str(stack.models)
        self._made: dict[str, Any] = {}
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds="/var/run/docker.sock"), base_url="http://docker/v1.41", timeout=60
        )

    def seen(self) -> Seen | None:
        filters = json.dumps({"label": ["cortex.managed=1"], "volume": [self._models]})
        for container in self._http.get("/containers/json", params={"filters": filters}).json():
            return self._running(container["Id"])
        return None

    def _running(self, container: str) -> Seen | None:
        made = self._http.get(f"/containers/{container}/json").json()
        bindings = [one for ports in (made["NetworkSettings"]["Ports"] or {}).values() for one in ports or ()]
        if not made["State"]["Pid"] or not bindings:
            return None
        self._latest = made
        return Seen(made["State"]["Pid"], f"http://127.0.0.1:{bindings[0]['HostPort']}/health")

    def remember(self) -> None:
        if self.seen() is not None:
            config = self._latest["Config"] | {"Labels": {}}
            networks = {name: {} for name in self._latest["NetworkSettings"]["Networks"]}
            self._made = config | {
                "HostConfig": self._latest["HostConfig"],
                "NetworkingConfig": {"EndpointsConfig": networks},
            }

    def alone(self) -> float:
        created = self._http.post("/containers/create", json=self._made)
        assert created.status_code == 201, created.text
        container = created.json()["Id"]
        try:
            self._http.post(f"/containers/{container}/start").raise_for_status()
            running = self._running(container)
            assert running is not None
            born = born_at(running.pid)
            return healthy(running.health) - born
        finally:
            self._http.delete(f"/containers/{container}", params={"force": "true"})


def first_token(stack: Stack, client: httpx.Client, model: str) -> bool:
    headers = {"Authorization": f"Bearer {stack.ready['api_key']}"}
    url = f"{stack.ready['gateway_url']}/v1/chat/completions"
    with client.stream("POST", url, json={**BODY, "model": model}, headers=headers) as answer:
        return answer.status_code == 200 and any(line.startswith("data: {") for line in answer.iter_lines())


def one_round(stack: Stack, engines: Engines, model: str) -> Round:
    stack.admin("POST", f"/admin/models/{model}/stop").raise_for_status()
    eventually(lambda: stack.model(model)["state"] == "stopped" and engines.seen() is None, timeout=180)
    time.sleep(1.0)
    tokens: list[float] = []

    def ask() -> None:
        with httpx.Client(timeout=120) as client:
            tokens.append(until(lambda: first_token(stack, client, model)))

    asking = threading.Thread(target=ask)
    began = time.time()
    stack.admin("POST", f"/admin/models/{model}/start").raise_for_status()
    asking.start()
    until(lambda: engines.seen() is not None)
    engine = engines.seen()
    assert engine is not None
    born = born_at(engine.pid)
    ready = healthy(engine.health)
    asking.join(DEADLINE_S)
    return Round(born - began, ready - began, tokens[0] - began)


def add_vllm(stack: Stack) -> str:
    shutil.copytree(tiny_vllm_model(), stack.models / TINY)
    model = {
        "name": TINY,
        "engine_type": "vllm",
        "local_path": TINY,
        "dtype": "float32",
        "max_model_len": 512,
        "enforce_eager": True,
        "kv_cache_memory_bytes": 64 * 1024 * 1024,
        "startup_timeout_s": 900,
    }
    stack.admin("POST", f"/admin/models/{DEMO}/stop").raise_for_status()
    stack.admin("POST", "/admin/models", model).raise_for_status()
    stack.admin("POST", f"/admin/models/{TINY}/start").raise_for_status()
    return TINY


def measure(stack: Stack, chosen: argparse.Namespace) -> tuple[list[Round], list[float]]:
    engines: Engines = Containers(stack) if chosen.runtime == "docker" else Processes(stack)
    stack.start(timeout=DEADLINE_S)
    rounds: list[Round] = []
    try:
        model = add_vllm(stack) if chosen.engine == "vllm" else DEMO
        eventually(lambda: stack.model(model)["state"] == "running", timeout=DEADLINE_S)
        for _ in range(chosen.rounds):
            rounds.append(one_round(stack, engines, model))
            sys.stdout.write(line_of(rounds[-1]))
            sys.stdout.flush()
        engines.remember()
    finally:
        stack.stop(timeout=180)
    return rounds, [engines.alone() for _ in range(chosen.alone)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["llamacpp", "vllm"], default="llamacpp")
    parser.add_argument("--runtime", choices=["process", "docker"], default="process")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--alone", type=int, default=3, help="starts without Cortex, to compare the engine's own load time"
    )
    parser.add_argument("--image", help="Docker: the engine's image")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="start-overhead-") as folder:
        stack = Stack(Path(folder) / "home")
        if chosen.runtime == "docker":
            stack.environment |= {
                "CORTEX_ORCHESTRATOR_RUNTIME": "docker",
                f"CORTEX_ORCHESTRATOR_{chosen.engine.upper()}_IMAGE": chosen.image or IMAGES[chosen.engine],
                "CORTEX_ORCHESTRATOR_DOCKER_NETWORK": NETWORK,
                "CORTEX_OFFLINE": "true",
            }
            if chosen.engine == "vllm":
                stack.environment["CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE"] = IMAGES["llamacpp"]
            Path(folder).chmod(0o755)
        elif chosen.engine == "vllm":
            stack.environment["CORTEX_ORCHESTRATOR_VLLM"] = str(vllm())
        try:
            rounds, alone = measure(stack, chosen)
        except AssertionError:
            sys.stderr.write(stack.tail())
            raise
        finally:
            if chosen.runtime == "docker":
                with suppress(subprocess.TimeoutExpired):
                    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True, timeout=30, check=False)
    report(rounds, alone)


def line_of(one: Round) -> str:
    return (
        f"process after {one.born:6.3f} s   ready {one.ready:7.3f} s   first token {one.token:7.3f} s   "
        f"engine's own {one.load:7.3f} s   overhead {one.overhead:6.3f} s\n"
    )


def report(rounds: list[Round], alone: list[float]) -> None:
    overheads = [one.overhead for one in rounds]
    token, load, born = (
        statistics.median(values)
        for values in ([one.token for one in rounds], [one.load for one in rounds], [one.born for one in rounds])
    )
    write = sys.stdout.write
    write(
        f"p50: overhead {statistics.median(overheads):.3f} s (until the process {born:.3f} s), worst {max(overheads):.3f} s, "
    )
    write(
        f"{len(rounds)} rounds; first token {token:.3f} s, engine's own {load:.3f} s; load {os.getloadavg()[0]:.1f}\n"
    )
    if alone:
        median = statistics.median(alone)
        write(f"the same command without Cortex: {median:.3f} s ({', '.join(f'{one:.2f}' for one in alone)}); ")
        write(f"first token minus that: {token - median:.3f} s\n")


if __name__ == "__main__":
    main()
