"""A llama-server that nobody of ours has started: registered, routed to, watched, found in the environment."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_testing.servers import NatsServer, free_port
from cortex_testing.services import ServiceProcess

pytestmark = [pytest.mark.integration, pytest.mark.system, pytest.mark.timeout(300)]

TOKEN = "an-admin-token-for-tests"
ENGINE_KEY = "the-key-of-somebody-elses-engine"


class Engine:
    """Somebody else's llama-server."""

    def __init__(self, binary: Path, gguf: Path) -> None:
        self.port = free_port()
        self._command = [
            binary,
            "-m",
            gguf,
            "--alias",
            "their-name",
            "--port",
            str(self.port),
            "-c",
            "1024",
            "-np",
            "1",
        ]
        self._command += ["-t", "2", "--offline", "--no-ui"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = os.environ | {"LLAMA_API_KEY": ENGINE_KEY}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, env=environment, stdout=quiet, stderr=quiet)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None


class Stage:
    """Registry, health and gateway as processes, and clients."""

    def __init__(self, services: dict[str, ServiceProcess]) -> None:
        self.services = services
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.admin = httpx.Client(
            base_url=f"{services['registry'].url}/admin", headers=headers, timeout=20, trust_env=False
        )

    def until(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline, "not true in time"
            time.sleep(0.1)
        return found

    def state(self, name: str) -> str | None:
        return self.admin.get(f"/upstreams/{name}").json()["state"]

    def chat(self, key: str, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        url = f"{self.services['gateway'].url}/v1/chat/completions"
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)


@pytest.fixture
def engine(llama_server_binary: Path, smollm2_gguf: Path) -> Iterator[Engine]:
    made = Engine(llama_server_binary, smollm2_gguf)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def open_engine(llama_server_binary: Path, smollm2_gguf: Path) -> Engine:
    return Engine(llama_server_binary, smollm2_gguf)


@pytest.fixture
def stage(
    engine: Engine, nats_server: NatsServer, postgres_dsn: str, secret_key: str, tmp_path: Path
) -> Iterator[Stage]:
    shared = {"CORTEX_NATS_URL": nats_server.url, "CORTEX_SECRET_KEY": secret_key}
    registry = {"DATABASE_URL": postgres_dsn, "ADMIN_TOKEN": TOKEN, "STATE_SETTLE_S": "0.1", "STATE_GRACE_S": "0.1"}
    services = {
        "registry": ServiceProcess("registry", tmp_path, shared | registry),
        "health": ServiceProcess("health", tmp_path, shared),
        "gateway": ServiceProcess("gateway", tmp_path, shared | {"SPOOL_DIR": str(tmp_path / "spool")}),
    }
    services["registry"].run("migrate")
    stage = Stage(services)
    try:
        for service in services.values():
            service.start()
        for service in services.values():
            service.wait_ready()
        yield stage
    finally:
        for service in services.values():
            service.stop()
        stage.admin.close()


def test_an_engine_of_somebody_else_is_routed_to_and_watched(stage: Stage, engine: Engine) -> None:
    key = stage.admin.post("/keys", json={"name": "client"}).json()["key"]
    body = {
        "served_model_name": "our-name",
        "engine_type": "llamacpp",
        "endpoints": [{"url": f"{engine.url}/v1", "served_name": "their-name", "api_key": ENGINE_KEY}],
    }
    created = stage.admin.post("/upstreams", json=body)
    assert created.status_code == 201, created.text
    assert ENGINE_KEY not in created.text
    stage.until(lambda: stage.state("our-name") == "running")

    answer = stage.until(lambda: (reply := stage.chat(key, "our-name")).status_code == 200 and reply).json()
    assert answer["usage"]["completion_tokens"] > 0
    listed = stage.until(lambda: stage.admin.get("/usage").json()["items"])
    assert (listed[0]["model"], listed[0]["model_id"]) == ("our-name", created.json()["id"])
    assert listed[0]["completion_tokens"] == answer["usage"]["completion_tokens"]

    tested = stage.admin.post("/models/our-name/test", json={"prompt": "Say hello."}, timeout=60)
    assert tested.status_code == 200, tested.text
    assert (tested.json()["ok"], tested.json()["status"]) == (True, 200)
    assert tested.json()["completion_tokens"] > 0

    engine.kill()
    stage.until(lambda: stage.state("our-name") == "failed")
    assert stage.admin.post("/models/our-name/test", timeout=60).json()["code"] == "no_healthy_replica"
    [upstream] = stage.admin.get("/upstreams", params={"external": True}).json()["items"]
    assert (upstream["verdict"], upstream["reason"], upstream["external"]) == ("unhealthy", "connection refused", True)
    assert stage.chat(key, "our-name").status_code == 503
    engine.start()
    stage.until(lambda: stage.state("our-name") == "running")
    assert stage.chat(key, "our-name").status_code == 200
    turns = stage.until(
        lambda: len(found := stage.admin.get("/upstreams").json()["items"][0]["history"]) >= 3 and found
    )
    assert [turn["healthy"] for turn in turns[:3]] == [True, False, True]

    asked = stage.admin.post("/upstreams/refresh-health", json={"model": "our-name"})
    assert asked.json() == {"replicas": [upstream["id"]]}
    wrong = {"endpoints": [{"url": engine.url, "served_name": "their-name", "api_key": "not-the-key"}]}
    stage.admin.patch("/upstreams/our-name", json=wrong).raise_for_status()
    refused = stage.until(lambda: (reply := stage.chat(key, "our-name")).status_code == 502 and reply)
    assert refused.json()["error"]["code"] == "engine_auth_failed"
    tested = stage.admin.post("/models/our-name/test", timeout=60).json()
    assert (tested["ok"], tested["status"], tested["error"]) == (False, 401, "Invalid API Key")
    assert stage.admin.delete("/upstreams/our-name").status_code == 204
    stage.until(lambda: stage.chat(key, "our-name").status_code == 404)
    assert httpx.get(f"{engine.url}/health", trust_env=False).status_code == 200, "what runs there goes on"
