"""Services of Cortex as processes of a test."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from cortex_testing.servers import free_port

READY_S = 90.0


class ServiceProcess:
    """`python -m cortex_<name>` on a free port, its output in a file.

    Args:
        settings: further environment; `PORT` style names get the service's prefix, full names stay as they are.
    """

    def __init__(self, name: str, folder: Path, settings: dict[str, str], *, port: int | None = None) -> None:
        self.name = name
        self.port = port or free_port()
        self.log = folder / f"{name}-{self.port}.log"
        prefix = f"CORTEX_{name.rpartition('-')[2].upper()}_"
        full = {
            key if key.startswith("CORTEX_") or key.endswith("_URLS") else f"{prefix}{key}": value
            for key, value in settings.items()
        }
        self.environment = os.environ | full | {f"{prefix}PORT": str(self.port)}
        self._module = f"cortex_{name.replace('-', '_')}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL on loopback."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> psutil.Process | None:
        """The running process, to look at; None while there is none."""
        process = self._process
        try:
            return None if process is None or process.poll() is not None else psutil.Process(process.pid)
        except psutil.NoSuchProcess:
            return None

    def run(self, *arguments: str, timeout_s: float = READY_S) -> None:
        """Run a command of the service to its end; raises CalledProcessError."""
        command = [sys.executable, "-m", self._module, *arguments]
        with self.log.open("ab") as log:
            subprocess.run(command, env=self.environment, check=True, stdout=log, stderr=log, timeout=timeout_s)

    def start(self) -> None:
        """Start; `wait_ready` waits."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=self.environment, stdout=log, stderr=log
            )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until /readyz says so; raises AssertionError with the end of the log."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{self.name} is not ready: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL when that takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=20)
        self._process = None
