"""The embedded stack with engines in real containers instead of processes."""

from collections.abc import Iterator

import pytest

from cortex_testing.deployment import docker
from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def containers(engine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("docker") / "home")
    stack.environment |= {
        "CORTEX_ORCHESTRATOR_RUNTIME": "docker",
        "CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE": engine_image,
        "CORTEX_ORCHESTRATOR_DOCKER_NETWORK": "cortex-system-test",
    }
    stack.start()
    yield stack
    assert stack.stop() == 0, stack.tail()
    assert running(stack) == [], "a container outlived `cortex up`"
    docker("network", "rm", "cortex-system-test")


def running(stack: Stack) -> list[str]:
    """Containers that mount this stack's models, running or not."""
    return docker("ps", "-aq", "--filter", "label=cortex.managed=1", "--filter", f"volume={stack.models}").split()


def test_the_demo_runs_in_a_container_that_nobody_reaches_from_outside(containers: Stack) -> None:
    assert containers.ask()
    [container] = running(containers)
    bindings = docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", container)
    assert '"HostIp":"127.0.0.1"' in bindings
    assert "0.0.0.0" not in bindings
    assert docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}", container) == "true [ALL]"


def test_a_killed_container_comes_back_without_a_hand(containers: Stack) -> None:
    [before] = running(containers)
    docker("kill", before)
    eventually(lambda: [one for one in running(containers) if one != before])
    assert eventually(containers.ask)


def test_a_container_survives_its_orchestrator_and_is_adopted(containers: Stack) -> None:
    [before] = running(containers)
    old = containers.kill("orchestrator")
    containers.restarted("orchestrator", old)
    eventually(lambda: containers.model()["state"] == "running")
    assert running(containers) == [before]
    containers.admin("POST", f"/admin/models/{DEMO}/stop").raise_for_status()
    eventually(lambda: running(containers) == [])
    eventually(lambda: containers.model()["state"] == "stopped")
    containers.cli("model", "start", DEMO)
    assert containers.ask()
