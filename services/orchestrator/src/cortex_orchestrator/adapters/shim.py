"""Parent of one engine process. Runs as `python -I -S shim.py <replica folder>`; standard library only.

It outlives the orchestrator, so that an engine's exit code is known even to an orchestrator that did not start it. It
leaves its caller's session, starts the engine with its own environment, keeps its output in size-bounded files, passes
SIGTERM on, kills the engine's process group on SIGUSR1, and at the end writes exit.json.
"""

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LAUNCH = "launch.json"
SHIM = "shim.json"
EXIT = "exit.json"
LOG = "engine.log"
PR_SET_PDEATHSIG = 1


def process_identity(pid: int) -> str | None:
    """What tells a process from a later one with the same pid; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _identity_from_ps(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _identity_from_ps(pid: int) -> str | None:
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
    )
    state, _, started = found.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def oom_kills() -> int:
    """How often the kernel killed for want of memory since it booted."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class BoundedLog:
    """engine.log and one predecessor, each at most half of the bound."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._limit = max(4096, max_bytes // 2)
        self._stream = path.open("ab", buffering=0)
        self._size = self._stream.tell()

    def write(self, data: bytes) -> None:
        """Append, in pieces that fit into one file."""
        for start in range(0, len(data), self._limit):
            self._append(data[start : start + self._limit])

    def _append(self, data: bytes) -> None:
        if self._size + len(data) > self._limit:
            self._stream.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._stream = self._path.open("ab", buffering=0)
            self._size = 0
        # A full disk must not stop the engine: its output is dropped instead.
        with contextlib.suppress(OSError):
            self._size += self._stream.write(data) or 0


class Shim:
    """One engine from its start to exit.json."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._launch: dict[str, Any] = json.loads((folder / LAUNCH).read_text())
        self._log = BoundedLog(folder / LOG, int(self._launch["log_bytes"]))
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._kill_asked = False
        self._engine: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start the engine, stay until its end."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(signum, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        before = oom_kills()
        try:
            engine = self._engine = self._spawn()
        except OSError as error:
            self._log.write(f"the engine did not start: {error}\n".encode())
            self._finish(127, False)
            return
        write_json(
            self._folder / SHIM,
            {
                "pid": os.getpid(),
                "identity": process_identity(os.getpid()),
                "engine_pid": engine.pid,
                "engine_identity": process_identity(engine.pid),
                "started_at": time.time(),
            },
        )
        code = self._attend(engine)
        killed = code == 128 + signal.SIGKILL and not self._kill_asked
        self._finish(code, killed and oom_kills() > before)

    def _spawn(self) -> subprocess.Popen[bytes]:
        shim_pid = os.getpid()
        lock_memory = bool(self._launch.get("lock_memory"))

        def prepare() -> None:
            """In the child: die with the shim, so that no engine is ever left without its keeper."""
            _die_with(shim_pid)
            if lock_memory:
                with contextlib.suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        return subprocess.Popen(
            self._launch["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - the shim has one thread
        )

    def _attend(self, engine: "subprocess.Popen[bytes]") -> int:
        """Pump output and signals until the engine has ended; its exit code as a shell would give it."""
        assert engine.stdout is not None
        output = engine.stdout.fileno()
        os.set_blocking(output, False)
        selector = selectors.DefaultSelector()
        selector.register(output, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        open_output = True
        while not self._has_ended(engine.pid):
            for key, _ in selector.select(timeout=1.0):
                if key.fd == self._wake_read:
                    self._drain(self._wake_read)
                elif not self._pump(output):
                    selector.unregister(output)
                    open_output = False
        # Children of the engine must not outlive it; its pid is still taken, so the group is surely its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(engine.pid, signal.SIGKILL)
        if open_output:
            self._pump(output)
        code = engine.wait()
        return 128 - code if code < 0 else code

    def _has_ended(self, pid: int) -> bool:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _pump(self, fd: int) -> bool:
        """Move what is there to the log; False at the end of the stream."""
        for _ in range(64):
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._log.write(data)
        return True

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 512):
                pass

    def _on_signal(self, signum: int, _frame: object) -> None:
        engine = self._engine
        if signum == signal.SIGCHLD or engine is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if signum == signal.SIGUSR1:
                self._kill_asked = True
                os.killpg(engine.pid, signal.SIGKILL)
            else:
                os.kill(engine.pid, signal.SIGTERM)

    def _finish(self, code: int, oom_killed: bool) -> None:
        write_json(self._folder / EXIT, {"code": code, "oom_killed": oom_killed, "finished_at": time.time()})


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere than on Linux nothing offers that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)


def main() -> None:
    """Detach from the caller, then be the shim. The first process ends at once."""
    folder = Path(sys.argv[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    Shim(folder).run()


if __name__ == "__main__":
    main()
