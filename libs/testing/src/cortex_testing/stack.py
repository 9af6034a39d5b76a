"""A whole Cortex, started by its own command, with ways to hurt it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from cortex_testing.servers import free_port

CORTEX = Path(sys.executable).parent / "cortex"
DEMO = "smollm2-135m"
PROGRAMS = {
    "registry": "cortex_registry",
    "orchestrator": "cortex_orchestrator",
    "health": "cortex_health",
    "gateway": "cortex_gateway",
    "gguf-inspector": "cortex_gguf_inspector",
    "console": "cortex_console",
    "nats": "nats-server",
    "postgres": "postgres",
}


def eventually(condition: Callable[[], Any], timeout: float = 60.0, interval: float = 0.1) -> Any:
    """Poll until the condition gives something true; returns it. Errors of the network count as false."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := condition():
                return last
        except (httpx.HTTPError, openai.APIError, psutil.Error) as error:
            last = error
        time.sleep(interval)
    raise AssertionError(f"not within {timeout} s; last: {last!r}")


def _runs(process: psutil.Process, program: str) -> bool:
    try:
        return any(program in Path(word).name for word in process.cmdline()[:4])
    except psutil.NoSuchProcess:
        return False  # it ended since the processes were listed


class Stack:
    """`cortex up` on free ports with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = os.environ | {
            "CORTEX_HOME": str(home),
            "CORTEX_PROFILE": "local",
            "CORTEX_GATEWAY_PORT": str(free_port()),
            "CORTEX_REGISTRY_PORT": str(free_port()),
            "CORTEX_CONSOLE_PORT": str(free_port()),
        }
        self.log = home.parent / f"{home.name}.log"
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def models(self) -> Path:
        return self.home / "models"

    def start(self, *arguments: str, timeout: float = 180.0) -> None:
        """Run `cortex up`; returns when ready.json is there."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [CORTEX, "up", *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        path = self.home / "ready.json"

        def is_ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"cortex up ended:\n{self.tail()}"
            return path.exists()

        eventually(is_ready, timeout=timeout)
        assert path.stat().st_mode & 0o777 == 0o600
        self.ready = json.loads(path.read_text())

    def stop(self, timeout: float = 60.0) -> int:
        """Ctrl-C; returns the exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            for process in [*self.tree(), psutil.Process(self._process.pid)]:
                process.kill()
            raise AssertionError(f"cortex up did not stop:\n{self.tail()}") from None
        finally:
            self._process = None

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def tree(self) -> list[psutil.Process]:
        """Every process that `cortex up` started and still has."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def program(self, name: str) -> psutil.Process:
        """The main process of one part."""
        mine = [process for process in self.tree() if _runs(process, PROGRAMS[name])]
        pids = {process.pid for process in mine}
        found = [process for process in mine if process.ppid() not in pids]
        assert len(found) == 1, f"{name}: {[process.cmdline() for process in found]}"
        return found[0]

    def engines(self) -> list[psutil.Process]:
        """llama-server processes that serve files of this home, whoever their parent is now."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (cmdline := process.info["cmdline"])
            and "llama-server" in Path(cmdline[0]).name
            and any(str(self.models) in word for word in cmdline)
        ]

    @contextmanager
    def frozen(self, name: str) -> Generator[None]:
        """The part is there but answers nothing, which is worse than being gone: its supervisor sees no reason to act."""
        process = self.program(name)
        stopped = [process, *process.children(recursive=True)] if name == "postgres" else [process]
        for one in stopped:
            one.suspend()
        try:
            yield
        finally:
            for one in stopped:
                if one.is_running():
                    one.resume()

    @contextmanager
    def down(self, *names: str) -> Generator[None]:
        """The parts are killed whenever they are there: their supervisor starts them ever more seldom."""
        over = threading.Event()

        def kill_on() -> None:
            while not over.wait(0.25):
                for name in names:
                    with suppress(AssertionError, psutil.NoSuchProcess):  # not there, or just gone
                        self.kill(name)

        killer = threading.Thread(target=kill_on)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()

    def kill(self, name: str) -> int:
        """SIGKILL; returns the pid that died."""
        process = self.program(name)
        process.kill()
        return process.pid

    def restarted(self, name: str, old_pid: int, timeout: float = 60.0) -> psutil.Process:
        """Wait until the supervisor has brought the part back."""

        def is_back() -> psutil.Process | None:
            try:
                process = self.program(name)
            except AssertionError:
                return None
            return process if process.pid != old_pid else None

        return eventually(is_back, timeout=timeout)

    def cli(self, *arguments: str, timeout: float = 120.0, expect: int = 0) -> str:
        """Run the `cortex` command; returns its standard output."""
        done = subprocess.run(
            [CORTEX, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == expect, (
            f"cortex {' '.join(arguments)} -> {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + (done.stderr if expect else "")

    def admin(self, method: str, path: str, body: Any = None, timeout: float = 30.0) -> httpx.Response:
        """Call the admin API."""
        return httpx.request(
            method,
            f"{self.ready['registry_url']}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.ready['admin_token']}"},
            timeout=timeout,
        )

    def openai(self, api_key: str | None = None, *, retries: int = 0, timeout: float = 60.0) -> openai.OpenAI:
        """The official client, pointed at the gateway."""
        return openai.OpenAI(
            base_url=f"{self.ready['gateway_url']}/v1",
            api_key=api_key or self.ready["api_key"],
            max_retries=retries,
            timeout=timeout,
        )

    def ask(self, model: str = DEMO, *, max_tokens: int = 8, timeout: float = 60.0) -> str:
        """One short completion; raises when it fails."""
        with self.openai(timeout=timeout) as client:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=max_tokens, temperature=0
            )
        return answer.choices[0].message.content or ""

    def model(self, name: str = DEMO) -> dict[str, Any]:
        response = self.admin("GET", f"/admin/models/{name}")
        response.raise_for_status()
        return response.json()

    def add_gguf(self, source: Path, name: str) -> Path:
        """Put a model file into the models directory, as an administrator would."""
        target = self.models / name
        if not target.exists():
            shutil.copyfile(source, target)
        return target
