"""The proxies under test, each as one process (or one worker) on one core, in front of the same engines."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_testing.servers import free_port

from .world import MODEL, Cores, Engines, GatewayWorld

RIVAL_PACKAGES = {
    "vllm-router": ("vllm-router==0.1.17",),
    "litellm": ("litellm[proxy]==1.106.2", "httptools"),
    "plot": ("matplotlib==3.10.*",),
}
RIVALS = ("nginx", "vllm-router", "litellm")
EVERYTHING = ("direct", "gateway", *RIVALS)


class Environments:
    """Throw-away virtual environments of the rivals, made at first use."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    def program(self, environment: str, name: str) -> Path:
        """Path of a program of an environment; installs it when it is missing."""
        folder = self.home / environment
        found = folder / "bin" / name
        if not found.exists():
            uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
            print(f"installing {' '.join(RIVAL_PACKAGES[environment])} into {folder}", file=sys.stderr)
            subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, folder], check=True)
            packages = RIVAL_PACKAGES[environment]
            subprocess.run([uv, "pip", "install", "-q", "-p", folder / "bin" / "python", *packages], check=True)
        return found

    def version(self, environment: str, package: str) -> str:
        python = self.home / environment / "bin" / "python"
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class Proxy:
    """A running proxy."""

    name: str
    port: int
    process: "subprocess.Popen[bytes] | None"
    pids: list[int]
    api_key: str

    def stop(self) -> None:
        """End it and its children."""
        if self.process is None:
            return
        pids = family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids[1:]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, 9)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += family(int(child))
    return found


class Starter:
    """Starts proxies by name. The gateway's NATS is started with the first gateway."""

    def __init__(self, cores: Cores, engines: Engines, environments: Environments, folder: Path, keys: int) -> None:
        self._cores = cores
        self._keys = keys
        self._engines = engines
        self._environments = environments
        self._folder = folder
        self._world: GatewayWorld | None = None
        self._count = 0

    def start(self, name: str) -> Proxy:
        """Start a proxy and wait until it answers a chat. Raises RuntimeError when it does not."""
        if name == "direct":
            return Proxy(name, self._engines.ports[0], None, [self._engines.pid], "none")
        self._count += 1
        port = free_port()
        variant, _, sources = name.partition("@")
        kind, _, busy_us = variant.partition("+busy")
        api_key = self.world.api_key if kind == "gateway" else "sk-bench-0001"
        command, environment = self._commands()[kind](port, api_key)
        if sources:
            environment["PYTHONPATH"] = sources
        if busy_us:
            environment["CORTEX_GATEWAY_BUSY_POLL_US"] = busy_us
        log = (self._folder / f"{kind}-{self._count}.log").open("wb")
        pinned = self._cores.pin(command, self._cores.proxy)
        process = subprocess.Popen(
            pinned, env=os.environ | environment, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
        )
        proxy = Proxy(name, port, process, [], api_key)
        try:
            wait_until_it_answers(proxy)
        except RuntimeError:
            proxy.stop()
            raise
        proxy.pids = family(process.pid)
        return proxy

    @property
    def world(self) -> GatewayWorld:
        if self._world is None:
            self._world = GatewayWorld(self._cores, self._engines.ports, self._keys)
        return self._world

    def helpers(self) -> list[int]:
        """Processes that the proxies depend on."""
        return [self._engines.pid, *([self._world.nats_pid] if self._world is not None else [])]

    def close(self) -> None:
        if self._world is not None:
            self._world.close()

    def _commands(self) -> Mapping[str, Callable[[int, str], tuple[Sequence[str | Path], dict[str, str]]]]:
        return {
            "gateway": self._gateway,
            "nginx": self._nginx,
            "vllm-router": self._vllm_router,
            "litellm": self._litellm,
        }

    def _gateway(self, port: int, _: str) -> tuple[Sequence[str | Path], dict[str, str]]:
        spool = str(self._folder / f"spool-{self._count}")
        return self.world.command(), self.world.environment(port, spool_dir=spool)

    def _nginx(self, port: int, _: str) -> tuple[Sequence[str | Path], dict[str, str]]:
        servers = " ".join(f"server 127.0.0.1:{engine};" for engine in self._engines.ports)
        folder = self._folder / f"nginx-{self._count}"
        folder.mkdir()
        config = folder / "nginx.conf"
        config.write_text(NGINX % {"folder": folder, "servers": servers, "port": port})
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-c", config, "-e", folder / "error.log"], {}

    def _vllm_router(self, port: int, api_key: str) -> tuple[Sequence[str | Path], dict[str, str]]:
        command: list[str | Path] = [self._environments.program("vllm-router", "vllm-router"), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--policy", "round_robin", "--log-level", "error", "--api-key", api_key]
        command += ["--prometheus-port", str(free_port()), "--worker-urls"]
        return [*command, *(f"http://127.0.0.1:{engine}" for engine in self._engines.ports)], {}

    def _litellm(self, port: int, api_key: str) -> tuple[Sequence[str | Path], dict[str, str]]:
        deployments = [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"http://127.0.0.1:{engine}/v1",
                    "api_key": "none",
                },
            }
            for engine in self._engines.ports
        ]
        config = self._folder / f"litellm-{self._count}.yaml"
        general = {"master_key": api_key}
        config.write_text(json.dumps({"model_list": deployments, "general_settings": general}))
        command = [self._environments.program("litellm", "litellm"), "--config", config, "--host", "127.0.0.1"]
        quiet = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
            "DISABLE_ADMIN_UI": "True",
        }
        return [*command, "--port", str(port), "--num_workers", "1"], quiet


NGINX = """
worker_processes 1; daemon off; master_process off; error_log %(folder)s/error.log warn; pid %(folder)s/pid;
worker_rlimit_nofile 19000;
events { worker_connections 18000; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
  uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e;
  upstream engines { %(servers)s keepalive 1024; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:%(port)d backlog=8192;
    location / {
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }
  }
}
"""


def wait_until_it_answers(proxy: Proxy, timeout_s: float = 180.0) -> None:
    """Raises RuntimeError when the proxy ends or gives no chat answer in time."""
    deadline = time.monotonic() + timeout_s
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"authorization": f"Bearer {proxy.api_key}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
    while time.monotonic() < deadline:
        if proxy.process is not None and proxy.process.poll() is not None:
            raise RuntimeError(f"{proxy.name} ended with {proxy.process.returncode}")
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                if b"usage" in answer.read():
                    time.sleep(1.0)
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"{proxy.name} does not answer")
