"""What the tests of Compose and of the Swarm stack share: the `docker` command, images, an .env, and asking what was deployed."""

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from cortex_testing import binaries
from cortex_testing.servers import free_port

ROOT = Path(__file__).parents[4]
VERSION = "system-test"
ENGINE_IMAGE = f"cortex/llamacpp-server:{VERSION}"
PROMETHEUS_IMAGE = os.environ.get("CORTEX_TEST_PROMETHEUS_IMAGE", "prom/prometheus:latest")
MODEL = "smollm2"


def docker(*arguments: str, timeout: float = 120.0, env: dict[str, str] | None = None) -> str:
    """Run the `docker` command; returns what it printed. Fails with what it complained of."""
    environment = os.environ | (env or {})
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


def docker_answers(*arguments: str) -> bool:
    """Whether there is such a `docker` command and it succeeds, for instance `info` or `compose version`."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", *arguments], capture_output=True, timeout=60, check=False).returncode == 0


def build_engine() -> None:
    """The llama-server image for the CPU."""
    source = str(ROOT / "images" / "llamacpp-server")
    docker("build", "-q", "-t", ENGINE_IMAGE, "--build-arg", "GPU_DRIVERS=", source, timeout=540)


def prepare(folder: Path, **more: str) -> tuple[Path, dict[str, str]]:
    """An .env as an administrator makes it, free ports in it, and a models folder with one model."""
    models = folder / "models"
    models.mkdir(mode=0o755)
    shutil.copy(binaries.demo_gguf(), models / "smollm2.gguf")
    for parent in (models, *models.parents):
        if parent != Path(parent.anchor) and os.access(parent, os.W_OK):
            parent.chmod(parent.stat().st_mode | 0o055)  # the services are not root
    env_file = folder / "env"
    command = [sys.executable, "deploy/make_env.py", "--models", str(models), "--output", str(env_file)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
    ours = {
        "CORTEX_VERSION": VERSION,
        "CORTEX_OFFLINE": "true",
        "CORTEX_LLAMACPP_IMAGE": ENGINE_IMAGE,
        "PROMETHEUS_IMAGE": PROMETHEUS_IMAGE,
        **more,
    }
    with env_file.open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in ours.items())
    return env_file, dict(
        line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line and line[0] != "#"
    )


@dataclass
class Deployed:
    """A Cortex in containers: how to administrate it and how to use it."""

    env_file: Path
    env: dict[str, str]
    admin_address: str
    gateway_address: str

    def admin(self, method: str, path: str, **body: Any) -> Any:
        """Call the admin API with the token of the .env."""
        headers = {"Authorization": f"Bearer {self.env['CORTEX_ADMIN_TOKEN']}"}
        answer = httpx.request(
            method, f"http://{self.admin_address}{path}", headers=headers, json=body or None, timeout=30
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def client(self) -> tuple[openai.OpenAI, str]:
        """A client with a key of its own, and the key's id."""
        key = self.admin("POST", "/admin/keys", name="deployed")
        url = f"http://{self.gateway_address}/v1"
        return openai.OpenAI(base_url=url, api_key=key["key"], max_retries=0), key["id"]

    def create(self) -> None:
        """The one model, and the wish that it runs."""
        self.admin(
            "POST",
            "/admin/models",
            name="SmolLM2",
            engine_type="llamacpp",
            local_path="smollm2.gguf",
            context_size=2048,
        )
        self.admin("POST", f"/admin/models/{MODEL}/start")

    def running(self) -> bool:
        """Whether the model is said to run."""
        return self.admin("GET", f"/admin/models/{MODEL}")["state"] == "running"


def answered(client: openai.OpenAI) -> bool:
    """Whether the model said something and its tokens were counted."""
    messages: Any = [{"role": "user", "content": "Say hi"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, timeout=60)
    return bool(answer.choices[0].message.content) and answer.usage is not None


def free_address() -> str:
    """127.0.0.1 and a port that nobody listens on."""
    return f"127.0.0.1:{free_port()}"


def project_name() -> str:
    """A name that no other run has."""
    return f"cortex-test-{secrets.token_hex(3)}"
