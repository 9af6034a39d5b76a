"""What Cortex adds to the start of an engine: from `start` to the first token, minus what the engine takes alone.

    python tests/bench/start_overhead.py [--engine llamacpp|vllm] [--rounds N]

Starts a whole Cortex with the process runtime. Each round stops the model, starts it through the admin API and asks through the
gateway until the first token comes; then runs the same command line with the same environment without Cortex and asks it
directly in the same way. Both include the process's start, loading, warm-up and the first token. Prints one line a round and the
medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from cortex_testing.binaries import tiny_vllm_model, vllm
from cortex_testing.servers import free_port
from cortex_testing.stack import DEMO, Stack, eventually

BODY = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1, "stream": True}
POLL_S = 0.02
DEADLINE_S = 300.0


def first_token(url: str, model: str, key: str) -> None:
    """Ask until an answer begins."""
    deadline = time.monotonic() + DEADLINE_S
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < deadline:
            try:
                with client.stream(
                    "POST", f"{url}/v1/chat/completions", json={**BODY, "model": model}, headers=headers
                ) as answer:
                    if answer.status_code == 200 and any(line.startswith("data: {") for line in answer.iter_lines()):
                        return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_S)
    raise AssertionError("no token came")


def engine_of(stack: Stack, folder: str) -> psutil.Process:
    """The oldest process that serves the model, which is not our keeper of processes."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "create_time"])
        if any(f"{stack.models}/{folder}" in word for word in process.info["cmdline"] or ())
    ]
    return min(found, key=lambda process: process.info["create_time"])


def through_cortex(stack: Stack, model: str) -> float:
    stack.admin("POST", f"/admin/models/{model}/stop").raise_for_status()
    eventually(lambda: stack.model(model)["state"] == "stopped", timeout=120)
    time.sleep(1.0)
    began = time.monotonic()
    stack.admin("POST", f"/admin/models/{model}/start").raise_for_status()
    first_token(stack.ready["gateway_url"], model, stack.ready["api_key"])
    return time.monotonic() - began


def alone(command: list[str], environment: dict[str, str], model: str) -> float:
    port = free_port()
    words = [str(port) if index and command[index - 1] == "--port" else word for index, word in enumerate(command)]
    key = environment.get("LLAMA_API_KEY") or environment["VLLM_API_KEY"]
    began = time.monotonic()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first_token(f"http://127.0.0.1:{port}", model, key)
        return time.monotonic() - began
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def add_vllm(stack: Stack) -> str:
    shutil.copytree(tiny_vllm_model(), stack.models / "tiny-llama")
    model = {
        "name": "tiny-llama",
        "engine_type": "vllm",
        "local_path": "tiny-llama",
        "dtype": "float32",
        "max_model_len": 512,
        "enforce_eager": True,
        "kv_cache_memory_bytes": 64 * 1024 * 1024,
    }
    stack.admin("POST", "/admin/models", model).raise_for_status()
    stack.admin("POST", "/admin/models/tiny-llama/start").raise_for_status()
    return "tiny-llama"


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
            engine = engine_of(stack, "tiny-llama" if chosen.engine == "vllm" else "")
            command, environment = engine.cmdline(), engine.environ()
            rounds = [
                (through_cortex(stack, model), _quietly(stack, model, command, environment))
                for _ in range(chosen.rounds)
            ]
        finally:
            stack.stop(timeout=120)
    report(rounds)


def _quietly(stack: Stack, model: str, command: list[str], environment: dict[str, str]) -> float:
    """Alone, with the model stopped in Cortex meanwhile."""
    stack.admin("POST", f"/admin/models/{model}/stop").raise_for_status()
    eventually(lambda: stack.model(model)["state"] == "stopped", timeout=120)
    return alone(command, environment, model)


def report(rounds: list[tuple[float, float]]) -> None:
    write = sys.stdout.write
    for with_cortex, without in rounds:
        write(f"with Cortex {with_cortex:7.3f} s   alone {without:7.3f} s   overhead {with_cortex - without:+7.3f} s\n")
    with_cortex, without = (statistics.median(column) for column in zip(*rounds, strict=True))
    overhead = statistics.median(a - b for a, b in rounds)
    write(f"p50: with Cortex {with_cortex:.3f} s, alone {without:.3f} s, overhead {overhead:+.3f} s")
    write(f" ({len(rounds)} rounds, load {os.getloadavg()[0]:.1f})\n")


if __name__ == "__main__":
    main()
