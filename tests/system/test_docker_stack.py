"""The embedded stack with engines in real containers instead of processes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_testing.stack import DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(600)]

IMAGE = "cortex/llamacpp-server:system-test"
SOURCE = Path(__file__).parents[2] / "images" / "llamacpp-server"


def docker(*arguments: str, timeout: float = 60.0) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=timeout
    ).stdout.strip()


def engine_is_there() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not engine_is_there():
        if os.environ.get("CORTEX_REQUIRE_DOCKER") == "1":
            pytest.fail("CORTEX_REQUIRE_DOCKER is set and there is no Docker engine")
        pytest.skip("no Docker engine")
    docker("build", "-q", "-t", IMAGE, "--build-arg", "GPU_DRIVERS=", str(SOURCE), timeout=540)
    stack = Stack(tmp_path_factory.mktemp("docker") / "home")
    stack.environment |= {
        "CORTEX_ORCHESTRATOR_RUNTIME": "docker",
        "CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE": IMAGE,
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
