"""A Docker engine of a test's own, in namespaces of its own: it may be stopped, killed and filled up.

Nothing of it touches the host's engine, whose bridge and rules a second dockerd would take away in the same network
namespace. Only root can have one.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docker
import psutil
from docker.errors import DockerException

NEEDED = ("dockerd", "containerd", "runc", "unshare", "nsenter", "ip", "mount")


def why_not() -> str | None:
    """Why there can be no engine of one's own here; None when there can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"not here: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "a Docker engine of one's own takes root"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no namespaces of one's own: {tried.stderr.strip()}"


def _until(check: Callable[[], Any], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"it did not come to this: {what}"
        time.sleep(0.05)


class PrivateEngine:
    """`disk_bytes` puts all its data on a disk of that size."""

    def __init__(self, folder: Path, *, disk_bytes: int | None = None) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        self._disk_bytes = disk_bytes
        self._daemon: subprocess.Popen[bytes] | None = None
        namespaces = ["unshare", "--net", "--mount", "--propagation", "private"]
        self._holder = subprocess.Popen([*namespaces, "sleep", "infinity"])
        own = os.stat("/proc/self/ns/net").st_ino
        _until(lambda: self._namespace(self._holder.pid) not in (None, own), "the namespaces are there")
        self.run("ip", "link", "set", "lo", "up")
        if disk_bytes is not None:
            self.run("mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(self._data))

    @property
    def url(self) -> str:
        return f"unix://{self.folder / 'docker.sock'}"

    def client(self) -> Any:
        return docker.DockerClient(base_url=self.url, version="auto", timeout=60)

    def inside(self, *command: str) -> list[str]:
        """The command, to be run where the engine's 127.0.0.1 is."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--", *command]

    def run(self, *command: str) -> str:
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def grow_disk(self, disk_bytes: int) -> None:
        self.run("mount", "-o", f"remount,size={disk_bytes}", str(self._data))

    def begin(self) -> None:
        """Start the engine without waiting for it."""
        assert self._daemon is None
        options: Sequence[str] = ("--storage-driver", "vfs") if self._disk_bytes is not None else ()
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self.inside(
                    "dockerd",
                    *("--data-root", str(self._data)),
                    *("--exec-root", str(self.folder / "exec")),
                    *("--pidfile", str(self.folder / "dockerd.pid")),
                    *("--host", self.url),
                    *options,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        self.begin()
        _until(self.answers, "the engine answers")

    def answers(self) -> bool:
        try:
            client = self.client()
        except (DockerException, OSError):
            return False
        with contextlib.closing(client):
            return True

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End the engine. SIGTERM takes its containers along, SIGKILL leaves them to its next start."""
        assert self._daemon is not None
        self._daemon.send_signal(signum)
        self._daemon.wait(timeout=60)
        self._daemon = None

    def load(self, image: str) -> None:
        """An image of the host's engine."""
        saved = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        command = ["docker", "--host", self.url, "load", "--quiet"]
        subprocess.run(command, stdin=saved.stdout, check=True, capture_output=True, timeout=120)
        assert saved.wait(timeout=60) == 0

    def close(self) -> None:
        """Leave nothing behind."""
        if self._daemon is not None:
            with contextlib.suppress(DockerException, OSError):
                client = self.client()
                for container in client.containers.list(all=True):
                    container.remove(force=True)
                client.close()
            self.stop()
        here = self._namespace(self._holder.pid)
        for process in psutil.process_iter():
            if process.pid != self._holder.pid and self._namespace(process.pid) == here:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._holder.kill()
        self._holder.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _namespace(pid: int) -> int | None:
        with contextlib.suppress(OSError):
            return os.stat(f"/proc/{pid}/ns/net").st_ino
        return None
