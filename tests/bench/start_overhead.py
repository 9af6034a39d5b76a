"""What Cortex adds to the start of an engine: from `start` to the first token, minus what the engine itself takes to load.

    python tests/bench/start_overhead.py [--engine llamacpp|vllm] [--rounds N]

Starts a whole Cortex with the process runtime. Each round stops the model, starts it through the admin API, and asks through the
gateway until the first token comes. The engine's own part is from the birth of its process (the kernel's record) to the first 200
of its own /health, which is watched directly. The rest is Cortex: reaching the orchestrator, creating the process, noticing
that it is ready, routing to it, and the first token itself. Prints one line a round and the medians.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from cortex_testing.binaries import tiny_vllm_model, vllm
from cortex_testing.stack import DEMO, Stack, eventually

BODY = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1, "stream": True}
POLL_S = 0.05
DEADLINE_S = 300.0
TINY = "tiny-llama"


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds since the call of `start`."""

    born: float
    ready: float
    token: float

    @property
    def overhead(self) -> float:
        return self.token - (self.ready - self.born)


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


def engine_of(stack: Stack) -> psutil.Process | None:
    """The oldest process that serves a model of this stack."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "create_time"])
        if "--port" in (words := process.info["cmdline"] or ()) and any(str(stack.models) in word for word in words)
    ]
    return min(found, key=lambda process: process.info["create_time"], default=None)


def born_at(pid: int) -> float:
    """To 10 ms; psutil's time of birth is off by up to a second, because it adds the whole second of the boot."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def first_token(stack: Stack, client: httpx.Client, model: str) -> bool:
    headers = {"Authorization": f"Bearer {stack.ready['api_key']}"}
    url = f"{stack.ready['gateway_url']}/v1/chat/completions"
    with client.stream("POST", url, json={**BODY, "model": model}, headers=headers) as answer:
        return answer.status_code == 200 and any(line.startswith("data: {") for line in answer.iter_lines())


def one_round(stack: Stack, model: str) -> Round:
    stack.admin("POST", f"/admin/models/{model}/stop").raise_for_status()
    eventually(lambda: stack.model(model)["state"] == "stopped" and engine_of(stack) is None, timeout=120)
    time.sleep(1.0)
    tokens: list[float] = []

    def ask() -> None:
        with httpx.Client(timeout=120) as client:
            tokens.append(until(lambda: first_token(stack, client, model)))

    asking = threading.Thread(target=ask)
    began = time.time()
    stack.admin("POST", f"/admin/models/{model}/start").raise_for_status()
    asking.start()
    until(lambda: engine_of(stack) is not None)
    engine = engine_of(stack)
    assert engine is not None
    born = born_at(engine.pid)
    words = engine.cmdline()
    url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/health"
    with httpx.Client(timeout=5) as client:
        ready = until(lambda: client.get(url).status_code == 200)
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
    }
    stack.admin("POST", f"/admin/models/{DEMO}/stop").raise_for_status()
    stack.admin("POST", "/admin/models", model).raise_for_status()
    stack.admin("POST", f"/admin/models/{TINY}/start").raise_for_status()
    return TINY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["llamacpp", "vllm"], default="llamacpp")
    parser.add_argument("--rounds", type=int, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="start-overhead-") as folder:
        stack = Stack(Path(folder) / "home")
        if chosen.engine == "vllm":
            stack.environment["CORTEX_ORCHESTRATOR_VLLM"] = str(vllm())
        stack.start()
        try:
            model = add_vllm(stack) if chosen.engine == "vllm" else DEMO
            eventually(lambda: stack.model(model)["state"] == "running", timeout=DEADLINE_S)
            rounds = [one_round(stack, model) for _ in range(chosen.rounds)]
        finally:
            stack.stop(timeout=120)
    report(rounds)


def report(rounds: list[Round]) -> None:
    write = sys.stdout.write
    for one in rounds:
        write(f"process after {one.born:6.3f} s   ready {one.ready:7.3f} s   first token {one.token:7.3f} s")
        write(f"   overhead {one.overhead:6.3f} s\n")
    values = sorted(one.overhead for one in rounds)
    born = statistics.median(one.born for one in rounds)
    write(f"p50: overhead {statistics.median(values):.3f} s (until the process {born:.3f} s), worst {values[-1]:.3f} s")
    write(f", {len(rounds)} rounds, load {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
