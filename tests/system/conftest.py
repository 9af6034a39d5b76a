"""One stack for all system tests: they leave it as they found it. And the images that those of Docker share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_testing import deployment
from cortex_testing.stack import Stack


@pytest.fixture(scope="session")
def _session_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("cortex") / "home")
    stack.start()
    yield stack
    status = stack.stop()
    assert status == 0, stack.tail()
    assert stack.engines() == [], "an engine outlived `cortex up`"


@pytest.fixture
def stack(_session_stack: Stack, tmp_path: Path) -> Stack:
    return _session_stack


def _required(there: bool, what: str) -> None:
    if there:
        return
    if os.environ.get("CORTEX_REQUIRE_DOCKER") == "1":
        pytest.fail(f"CORTEX_REQUIRE_DOCKER is set and there is no {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(scope="session")
def engine_image() -> str:
    """llama-server for the CPU, built once."""
    _required(deployment.docker_answers("info"), "Docker engine")
    deployment.build_engine()
    return deployment.ENGINE_IMAGE


@pytest.fixture(scope="session")
def service_images(engine_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every service as Compose builds it, built once; the tag. Needs Compose."""
    _required(deployment.docker_answers("compose", "version"), "Docker engine with Compose")
    env_file, _ = deployment.prepare(tmp_path_factory.mktemp("images"))
    compose = ("compose", "-f", str(deployment.ROOT / "docker-compose.yaml"), "--env-file", str(env_file))
    deployment.docker(*compose, "build", "-q", timeout=800)
    return deployment.VERSION
