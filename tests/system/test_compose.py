"""docker-compose.yaml as it is deployed: built, started, scaled, taken down and brought up again, on a real engine."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import nats
import pytest

from cortex_testing.deployment import ROOT, Deployed, answered, docker, free_address, prepare, project_name
from cortex_testing.stack import eventually

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(900)]

JOBS = {
    "prometheus",
    "cortex-gateway",
    "cortex-registry",
    "cortex-orchestrator",
    "cortex-health",
    "cortex-gguf-inspector",
    "cortex-console",
    "cortex-edge",
}
SCALED = ("gateway", "registry", "health", "orchestrator")


@dataclass
class Installation(Deployed):
    """One Compose project with its own secrets, ports, volumes and networks."""

    project: str = field(default_factory=project_name)

    def compose(self, *arguments: str, timeout: float = 300.0) -> str:
        return docker(
            "compose", "-f", str(ROOT / "docker-compose.yaml"), "--env-file", str(self.env_file), "-p", self.project,
            *arguments, timeout=timeout,
        )  # fmt: skip

    def up(self, *services: str, **scale: int) -> None:
        counts = [word for name, count in scale.items() for word in ("--scale", f"{name}={count}")]
        self.compose("up", "-d", "--wait", *counts, *services)

    def engines(self) -> list[str]:
        wanted = ("--filter", "label=cortex.managed=1", "--filter", f"network={self.env['CORTEX_ENGINES_NETWORK']}")
        return docker("ps", "-aq", *wanted).split()


@pytest.fixture(scope="module")
def installation(service_images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    project = project_name()
    gateway, admin, console = free_address(), free_address(), free_address()
    env_file, env = prepare(
        tmp_path_factory.mktemp("compose"),
        CORTEX_ENGINES_NETWORK=f"{project}-engines",
        CORTEX_NATS_BIND=free_address(),
        CORTEX_GATEWAY_BIND=gateway,
        CORTEX_ADMIN_BIND=admin,
        CORTEX_CONSOLE_BIND=console,
        CORTEX_PROMETHEUS_BIND=free_address(),
    )
    made = Installation(env_file, env, admin, gateway, project)
    try:
        made.up()
        made.create()
        eventually(made.running, 120)
        yield made
    finally:
        engines = made.engines()
        if engines:
            docker("rm", "-f", *engines)
        made.compose("--profile", "*", "down", "-v", "-t", "10", "--remove-orphans")


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
    eventually(installation.running, 60)
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


def test_the_console_lets_people_in_and_sees_whose_address_it_is(installation: Installation) -> None:
    base = f"http://{installation.env['CORTEX_CONSOLE_BIND']}"
    made = installation.admin("POST", "/admin/users", username="visitor", role="viewer")
    with httpx.Client(base_url=base, timeout=30) as browser:
        form = {"username": "visitor", "password": made["one_time_password"], "next": "/models"}
        answer = browser.post("/sign-in", data=form, headers={"X-Forwarded-For": "203.0.113.9"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/change-password")
        assert "Change your password" in browser.get("/change-password").text
        session = httpx.Cookies({"cortex_session": str(browser.cookies["cortex_console_session"])})
    mine = httpx.get(f"http://{installation.admin_address}/admin/auth/sessions", cookies=session, timeout=30).json()
    [one] = mine["items"]
    assert one["address"] not in ("203.0.113.9", None), "what a client says of its own address counts for nothing"
    command = ("exec", "-T", "registry", "python", "-m", "cortex_registry", "sign-in-link", "--username", "visitor")
    link = installation.compose(*command, "--console", base).strip()
    assert "Sign in" in httpx.get(link, timeout=30).text
    code = {"code": link.partition("code=")[2]}
    answer = httpx.post(f"http://{installation.admin_address}/admin/auth/exchange", json=code, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (409, "new_password_required")
    installation.admin("DELETE", f"/admin/users/{made['id']}")


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


def test_prometheus_finds_every_service_and_sees_the_engine(installation: Installation) -> None:
    installation.up("prometheus")
    api = f"http://{installation.env['CORTEX_PROMETHEUS_BIND']}/api/v1"

    def found() -> Any:
        targets = httpx.get(f"{api}/targets", timeout=10).json()["data"]["activeTargets"]
        healths = {target["labels"]["job"]: target["health"] for target in targets}
        return healths if set(healths.values()) == {"up"} and len(healths) >= len(JOBS) else None

    assert eventually(found, 60).keys() == JOBS
    rules = httpx.get(f"{api}/rules", timeout=10).json()["data"]["groups"]
    assert sum(len(group["rules"]) for group in rules) > 10
    query = {"query": "max by (model, engine_type) (cortex_engine_healthy)"}
    [engine] = eventually(lambda: httpx.get(f"{api}/query", params=query, timeout=10).json()["data"]["result"], 60)
    assert engine["metric"]["engine_type"] == "llamacpp"
    assert engine["value"][1] == "1"


def test_stopping_the_model_leaves_no_container(installation: Installation) -> None:
    installation.admin("POST", "/admin/models/smollm2/stop")
    eventually(lambda: installation.engines() == [], 60)
    installation.admin("POST", "/admin/models/smollm2/start")
    eventually(installation.running, 120)
    assert len(installation.engines()) == 1
