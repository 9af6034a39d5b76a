"""deploy/swarm/stack.yaml on a swarm of one node: it converges, serves a model, and `docker stack rm` leaves nothing.

The kernel of this machine may lack IPVS, so ports and addresses are those that need none (the head of the stack file).
Takes about a minute, built images given: set CORTEX_TEST_SWARM_STACK=1, or CORTEX_REQUIRE_SWARM_STACK=1 to fail where it cannot run.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cortex_testing.deployment import MODEL, ROOT, Deployed, answered, docker, free_address, prepare, project_name
from cortex_testing.stack import eventually

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(900)]

STACK_FILE = ROOT / "deploy" / "swarm" / "stack.yaml"
DONE = {"migrate"}
"""Services whose task ends well and is not started again."""


@dataclass
class Stack(Deployed):
    """One stack with its own secrets, ports, volumes and networks."""

    name: str = field(default_factory=project_name)

    def deploy(self) -> None:
        docker("stack", "deploy", "--resolve-image", "never", "-c", str(STACK_FILE), self.name, env=self.env)

    def tasks(self) -> dict[str, str]:
        """Service -> what is not as it should be; nothing when all is."""
        wrong: dict[str, str] = {}
        for line in docker("stack", "services", "--format", "{{json .}}", self.name).splitlines():
            service = json.loads(line)
            name = service["Name"].removeprefix(f"{self.name}_")
            running, _, wanted = service["Replicas"].partition(" ")[0].partition("/")
            if name in DONE:
                states = docker("service", "ps", "--format", "{{.CurrentState}}", service["Name"])
                if not states.startswith("Complete"):
                    wrong[name] = states
            elif running != wanted:
                wrong[name] = docker(
                    "service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", service["Name"]
                )
        return wrong

    def left(self) -> list[str]:
        """Services, containers, networks and configurations of the stack, its engines included."""
        label = f"label=com.docker.stack.namespace={self.name}"
        engines = f"{self.env['CORTEX_ENGINES_NETWORK']}$"
        return [
            *docker("service", "ls", "-q", "--filter", label).split(),
            *docker("service", "ls", "-q", "--filter", "label=cortex.managed=1").split(),
            *docker("ps", "-aq", "--filter", label).split(),
            *docker("network", "ls", "-q", "--filter", label).split(),
            *docker("network", "ls", "-q", "--filter", f"name={engines}").split(),
            *docker("config", "ls", "-q", "--filter", label).split(),
        ]


@pytest.fixture(scope="module")
def swarm() -> Iterator[None]:
    """This engine as a swarm of one node with the labels that the stack asks for; left again if it was none before."""
    if os.environ.get("CORTEX_TEST_SWARM_STACK") != "1" and os.environ.get("CORTEX_REQUIRE_SWARM_STACK") != "1":
        pytest.skip("takes a minute: CORTEX_TEST_SWARM_STACK=1 runs it")
    with (Path(tempfile.gettempdir()) / "cortex-swarm-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = docker("info", "-f", "{{.Swarm.LocalNodeState}}") == "inactive"
        if started:
            docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
        node = docker("info", "-f", "{{.Swarm.NodeID}}")
        docker("node", "update", "--label-add", "cortex.engines=true", "--label-add", "cortex.state=true", node)
        try:
            yield
        finally:
            if started:
                docker("swarm", "leave", "--force")


@pytest.fixture(scope="module")
def stack(swarm: None, service_images: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    name = project_name()
    gateway, admin = free_address(), free_address()
    env_file, env = prepare(
        tmp_path_factory.mktemp("swarm"),
        CORTEX_ENGINES_NETWORK=f"{name}-engines",
        CORTEX_ENDPOINT_MODE="dnsrr",
        CORTEX_PORT_MODE="host",
        CORTEX_UPDATE_ORDER="stop-first",
        CORTEX_GATEWAY_PORT=gateway.rpartition(":")[2],
        CORTEX_ADMIN_PORT=admin.rpartition(":")[2],
        CORTEX_CONSOLE_PORT=free_address().rpartition(":")[2],
        # A port of the host is one container's.
        CORTEX_GATEWAY_REPLICAS="1",
        CORTEX_REGISTRY_REPLICAS="1",
        CORTEX_HEALTH_REPLICAS="2",
    )
    made = Stack(env_file, env, admin, gateway, name)
    try:
        made.deploy()
        yield made
    finally:
        docker("stack", "rm", name)
        engines = docker("service", "ls", "-q", "--filter", "label=cortex.managed=1").split()
        if engines:
            docker("service", "rm", *engines)
        eventually(lambda: not made.left(), 120)
        volumes = docker("volume", "ls", "-q", "--filter", f"label=com.docker.stack.namespace={name}").split()
        if volumes:
            eventually(lambda: docker("volume", "rm", "-f", *volumes), 30)


def test_the_stack_converges_serves_a_model_and_is_removed_whole(stack: Stack) -> None:
    converge(stack)
    stack.create()
    eventually(stack.running, 120)
    engine = docker("service", "ls", "--filter", "label=cortex.managed=1", "--format", "{{.Name}} {{.Replicas}}")
    assert engine.startswith(f"llamacpp-model-{stack.admin('GET', f'/admin/models/{MODEL}')['id']}")
    client, key = stack.client()
    assert eventually(lambda: answered(client), 30)
    counted = eventually(lambda: stack.admin("GET", f"/admin/usage?key_id={key}")["totals"]["completed"], 60)
    assert counted == 1

    stack.deploy()  # once more: nothing changes
    converge(stack)
    assert (
        docker("service", "ls", "--filter", "label=cortex.managed=1", "--format", "{{.Name}} {{.Replicas}}") == engine
    )

    stack.admin("POST", f"/admin/models/{MODEL}/stop")
    eventually(lambda: not docker("service", "ls", "-q", "--filter", "label=cortex.managed=1"), 60)
    docker("stack", "rm", stack.name)
    try:
        eventually(lambda: not stack.left(), 120)
    except AssertionError:
        pytest.fail(f"left: {stack.left()}")


def converge(stack: Stack) -> None:
    """Wait until every service has its tasks and the registry answers."""
    try:
        eventually(lambda: not stack.tasks(), 240, interval=1.0)
    except AssertionError:
        pytest.fail(json.dumps(stack.tasks(), indent=1))
    eventually(lambda: stack.admin("GET", "/admin/models") is not None, 60)
