"""What memory a real llama-server says it takes: started with its options, read, killed."""

import re
import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cortex_testing.servers import free_port

MIB = 1 << 20
_BUFFER = re.compile(r"(?P<device>\S+) (?P<kind>model|KV|RS|output|compute) buffer size =\s*(?P<size>[\d.]+) MiB")
_CACHE = re.compile(r"llama_(?:kv_cache|memory_recurrent): size =\s*(?P<size>[\d.]+) MiB \(\s*(?P<cells>\d+) cells")
_ROW = re.compile(
    r"\|\s+- (?P<device>.+?)\s*\|.*?(?P<self>\d+) =\s*(?P<model>\d+) \+\s*(?P<context>\d+) \+\s*(?P<compute>\d+)"
)
_DRY_RUN_ENDS = re.compile(r"fitting params to free memory took|failed to fit params")
_LOADED = "sched_reserve: reserve took"
_FAILED = ("error loading model", "invalid argument", "exiting due to", "couldn't bind")


@dataclass(slots=True)
class Measured:
    """MiB, as printed (two decimals; whole numbers in the model's part of a dry run)."""

    caches: list[float] = field(default_factory=list[float])
    cells: list[int] = field(default_factory=list[int])
    buffers: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Device -> kind (model, KV, RS, output, compute) -> MiB."""
    weights: dict[str, int] = field(default_factory=dict[str, int])
    """Device -> MiB of weights, from the engine's table."""
    log: list[str] = field(default_factory=list[str])

    @property
    def cache_total(self) -> float:
        """All caches."""
        return sum(self.caches)

    def of(self, kind: str) -> dict[str, float]:
        """Device -> MiB of one kind."""
        return {device: kinds[kind] for device, kinds in self.buffers.items() if kind in kinds}


class MeasureError(RuntimeError):
    """The engine did not get so far; the text is the end of its log."""


def measure(binary: Path, model: Path, arguments: Sequence[str], *, load: bool, timeout_s: float = 60.0) -> Measured:
    """Start llama-server, read its memory, kill it. `load` waits for the real buffers; otherwise its own dry run is enough.

    Raises:
        MeasureError: the engine refused, or was not that far in time.
    """
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(free_port())]
    command += ["-lv", "5", "--no-warmup", "--offline", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    watchdog = threading.Timer(timeout_s, process.kill)
    watchdog.start()
    try:
        return _read(process, load=load)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def _read(process: "subprocess.Popen[str]", *, load: bool) -> Measured:
    assert process.stdout is not None
    result, dry_over = Measured(), False
    for line in process.stdout:
        result.log.append(line.rstrip())
        if any(sign in line for sign in _FAILED):
            break
        _take(result, line, dry_over=dry_over)
        if not dry_over and _DRY_RUN_ENDS.search(line):
            dry_over = True
            if not load:
                return result
            result.buffers, result.caches, result.cells = {}, [], []
        if dry_over and _LOADED in line:
            return result
    raise MeasureError("\n".join(result.log[-15:]))


def _take(result: Measured, line: str, *, dry_over: bool) -> None:
    if (found := _BUFFER.search(line)) is not None:
        kinds = result.buffers.setdefault(found["device"], {})
        kinds[found["kind"]] = kinds.get(found["kind"], 0.0) + float(found["size"])
    elif (found := _CACHE.search(line)) is not None:
        result.caches.append(float(found["size"]))
        result.cells.append(int(found["cells"]))
    elif not dry_over and (found := _ROW.search(line)) is not None:
        result.weights[found["device"]] = int(found["model"])


@contextmanager
def rpc_devices(folder: Path, count: int) -> Generator[list[str]]:
    """`count` ggml-rpc-servers from `folder`: devices without a GPU. Gives their addresses in order."""
    ports = [free_port() for _ in range(count)]
    servers = [
        subprocess.Popen(
            [str(folder / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    try:
        time.sleep(1.5)
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for server in servers:
            server.kill()
            server.wait(timeout=10)
