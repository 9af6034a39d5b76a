"""docker-compose.yaml as it is deployed: built, started, scaled, taken down and brought up again, on a real engine."""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
import openai
import pytest

from cortex_testing import binaries
from cortex_testing.servers import free_port
from cortex_testing.stack import eventually

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ENGINE_IMAGE = "cortex/llamacpp-server:system-test"
SCALED = ("gateway", "registry", "health", "orchestrator")


def docker(*arguments: str, timeout: float = 120.0) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


@dataclass
class Installation:
    """One Compose project with its own secrets, ports, volumes and networks."""

    project: str
    env_file: Path
    env: dict[str, str]

    def compose(self, *arguments: str, timeout: float = 300.0) -> str:
        return docker(
            "compose", "-f", str(ROOT / "docker-compose.yaml"), "--env-file", str(self.env_file), "-p", self.project,
            *arguments, timeout=timeout,
        )  # fmt: skip

    def up(self, **scale: int) -> None:
        counts = [word for name, count in scale.items() for word in ("--scale", f"{name}={count}")]
        self.compose("up", "-d", "--wait", *counts)

    def admin(self, method: str, path: str, **body: Any) -> Any:
        url = f"http://{self.env['CORTEX_ADMIN_BIND']}{path}"
        headers = {"Authorization": f"Bearer {self.env['CORTEX_ADMIN_TOKEN']}"}
        answer = httpx.request(method, url, headers=headers, json=body or None, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def client(self) -> tuple[openai.OpenAI, str]:
        """A client with a key of its own, and the key's id."""
        key = self.admin("POST", "/admin/keys", name="compose")
        url = f"http://{self.env['CORTEX_GATEWAY_BIND']}/v1"
        return openai.OpenAI(base_url=url, api_key=key["key"], max_retries=0), key["id"]

    def engines(self) -> list[str]:
        wanted = ("--filter", "label=cortex.managed=1", "--filter", f"network={self.env['CORTEX_ENGINES_NETWORK']}")
        return docker("ps", "-aq", *wanted).split()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    available = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, timeout=30, check=False
    ).returncode == 0  # fmt: skip
    if not available:
        if os.environ.get("CORTEX_REQUIRE_DOCKER") == "1":
            pytest.fail("CORTEX_REQUIRE_DOCKER is set and there is no Docker engine with Compose")
        pytest.skip("no Docker engine with Compose")
    made = prepare(tmp_path_factory.mktemp("compose"))
    docker("build", "-q", "-t", ENGINE_IMAGE, "--build-arg", "GPU_DRIVERS=", str(ROOT / "images" / "llamacpp-server"),
           timeout=540)  # fmt: skip
    made.compose("build", "-q", timeout=800)
    try:
        made.up()
        made.admin(
            "POST",
            "/admin/models",
            name="SmolLM2",
            engine_type="llamacpp",
            local_path="smollm2.gguf",
            context_size=2048,
        )
        made.admin("POST", "/admin/models/smollm2/start")
        eventually(running(made), 120)
        yield made
    finally:
        engines = made.engines()
        if engines:
            docker("rm", "-f", *engines)
        made.compose("down", "-v", "-t", "10", "--remove-orphans")


def prepare(folder: Path) -> Installation:
    """An .env as an administrator makes it, and a models folder with one model."""
    models = folder / "models"
    models.mkdir(mode=0o755)
    shutil.copy(binaries.demo_gguf(), models / "smollm2.gguf")
    for parent in (models, *models.parents):
        if parent != Path(parent.anchor) and os.access(parent, os.W_OK):
            parent.chmod(parent.stat().st_mode | 0o055)  # the services are not root
    env_file = folder / "env"
    command = [sys.executable, "deploy/make_env.py", "--models", str(models), "--output", str(env_file)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
    project = f"cortex-test-{secrets.token_hex(3)}"
    ours = {
        "CORTEX_VERSION": "system-test",
        "CORTEX_OFFLINE": "true",
        "CORTEX_LLAMACPP_IMAGE": ENGINE_IMAGE,
        "CORTEX_ENGINES_NETWORK": f"{project}-engines",
        "CORTEX_NATS_BIND": f"127.0.0.1:{free_port()}",
        "CORTEX_GATEWAY_BIND": f"127.0.0.1:{free_port()}",
        "CORTEX_ADMIN_BIND": f"127.0.0.1:{free_port()}",
    }
    with env_file.open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in ours.items())
    env = dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line and line[0] != "#")
    return Installation(project, env_file, env)


def answered(client: openai.OpenAI) -> bool:
    messages: Any = [{"role": "user", "content": "Say hi"}]
    answer = client.chat.completions.create(model="smollm2", messages=messages, max_tokens=8, timeout=60)
    return bool(answer.choices[0].message.content) and answer.usage is not None


def running(installation: Installation) -> Callable[[], bool]:
    return lambda: installation.admin("GET", "/admin/models/smollm2")["state"] == "running"


def test_a_model_answers_while_the_services_are_scaled_killed_taken_down_and_back(installation: Installation) -> None:
    client, key = installation.client()
    assert answered(client)
    [engine] = installation.engines()
    assert docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", engine) in ("{}", '{"8000/tcp":null}')

    installation.up(**dict.fromkeys(SCALED, 2))
    for service in SCALED:
        assert len(installation.compose("ps", "-q", service).split()) == 2
    assert installation.engines() == [engine]
    gateways = installation.compose("ps", "-q", "gateway").split()
    docker("kill", gateways[0])
    assert all(answered(client) for _ in range(4)), "the edge goes to the gateway that is left"

    installation.compose("down", "-t", "20")
    assert installation.engines() == [engine], "the engine outlives the services"
    installation.up()
    eventually(running(installation), 60)
    assert installation.engines() == [engine], "the engine was adopted, not replaced"
    assert answered(client), "keys and models are still there"
    # A record that was handed to a registry on its way out comes again when its acknowledgement is overdue (60 s).
    counts = eventually(lambda: settled(installation, key, 6), 120)
    assert counts == {"requests": 6, "completed": 6}


def settled(installation: Installation, key: str, requests: int) -> Any:
    """What the usage of a key says, once that many requests are in it."""
    totals = installation.admin("GET", f"/admin/usage?key_id={key}")["totals"]
    counts = {name: totals[name] for name in ("requests", "completed")}
    return counts if counts["requests"] >= requests else None


def test_no_service_asked_nats_for_what_it_may_not(installation: Installation) -> None:
    log = installation.compose("logs", "--no-color", "nats")
    assert "Server is ready" in log
    assert [line for line in log.splitlines() if "Violation" in line] == []


def test_no_secret_is_in_a_log(installation: Installation) -> None:
    log = installation.compose("logs", "--no-color")
    assert len(log) > 1000
    hidden = [name for name, value in installation.env.items() if value.startswith("k") and len(value) == 65]
    assert len(hidden) == 10
    assert [name for name in hidden if installation.env[name] in log] == []


async def test_the_operator_hears_what_happens(installation: Installation) -> None:
    host = installation.env["CORTEX_NATS_BIND"]
    client = await nats.connect(f"nats://{host}", user="operator", password=installation.env["NATS_OPERATOR_PASSWORD"])
    try:
        heard = await client.subscribe("key.created")
        await client.flush()
        await asyncio.to_thread(installation.admin, "POST", "/admin/keys", name="heard")
        assert b"heard" in (await heard.next_msg(timeout=20)).data
    finally:
        await client.close()


def test_stopping_the_model_leaves_no_container(installation: Installation) -> None:
    installation.admin("POST", "/admin/models/smollm2/stop")
    eventually(lambda: installation.engines() == [], 60)
    installation.admin("POST", "/admin/models/smollm2/start")
    eventually(running(installation), 120)
    assert len(installation.engines()) == 1
