"""A Docker engine of a test's own, in namespaces of its own: it may be stopped, killed and filled up.

Nothing of it touches the host's engine, whose bridge and rules a second dockerd would take away in the same network
namespace. Only root can have one.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
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
        with (self.folder / "dockerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self.inside(
                    "dockerd",
                    *("--data-root", str(self._data)),
                    *("--exec-root", str(self.folder / "exec")),
                    *("--pidfile", str(self.folder / "dockerd.pid")),
                    *("--host", self.url),
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
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(self.url.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End the engine. SIGTERM takes its containers along, SIGKILL leaves them to its next start."""
        assert self._daemon is not None
        self._daemon.send_signal(signum)
        self._daemon.wait(timeout=60)
        self._daemon = None
        # Its containerd dies with it. A successor takes one that dies, or that nobody has reaped, for alive and waits.
        _until(
            lambda: not any(one.info["name"] == "containerd" for one in self._processes()), "its containerd has ended"
        )
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def load(self, tag: str, layer: bytes, config: Mapping[str, Any]) -> None:
        """Make an image of one layer."""
        changes = [f"{name.upper()} {json.dumps(value)}" for name, value in config.items() if name != "Env"]
        changes += [f"ENV {value}" for value in config.get("Env", ())]
        repository, _, version = tag.partition(":")
        client = self.client()
        client.api.import_image_from_data(layer, repository=repository, tag=version, changes=changes)
        client.close()

    def close(self) -> None:
        """Leave nothing behind."""
        if self._daemon is not None:
            with contextlib.suppress(DockerException, OSError):
                client = self.client()
                for container in client.containers.list(all=True):
                    container.remove(force=True)
                client.close()
            self.stop()
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._holder.kill()
        self._holder.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """All that runs in the engine's namespaces, containers' own left out."""
        here = self._namespace(self._holder.pid)
        return [
            process
            for process in psutil.process_iter(["name"])
            if process.pid != self._holder.pid and self._namespace(process.pid) == here
        ]

    @staticmethod
    def _namespace(pid: int) -> int | None:
        with contextlib.suppress(OSError):
            return os.stat(f"/proc/{pid}/ns/net").st_ino
        return None
