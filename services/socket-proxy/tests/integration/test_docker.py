"""The proxy between a real Docker client and a real Docker engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import docker
import pytest
import uvicorn
from docker.errors import APIError, DockerException

from cortex_socket_proxy.policy import Policy
from cortex_socket_proxy.proxy import SocketProxy, new_engine_client
from cortex_testing.servers import free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
IMAGE = "python:3.11-slim"
SOCKET = "/var/run/docker.sock"
HARDENED: dict[str, Any] = {
    "network_mode": "none",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "read_only": True,
}


def _images() -> set[str]:
    try:
        client = docker.from_env()
        return {tag for image in client.images.list() for tag in image.tags}
    except DockerException:
        return set()


@pytest.fixture(scope="module", autouse=True)
def _docker_and_image() -> None:
    if IMAGE not in _images():
        pytest.skip(f"needs a Docker engine with {IMAGE}")


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    port = free_port()
    async with new_engine_client(SOCKET, 5.0) as engine:
        policy = Policy(images=(IMAGE,), binds=(), volumes=(), network="cortex-proxy-test")
        app = SocketProxy(engine, policy, max_body_bytes=64 * 1024)
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_config=None, ws="none")
        )
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        made = await asyncio.to_thread(docker.DockerClient, base_url=f"tcp://127.0.0.1:{port}", timeout=60)
        try:
            yield made
        finally:
            await asyncio.to_thread(made.close)
            server.should_exit = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await task


async def test_a_hardened_container_of_ours_runs_and_its_output_streams_back(client: Any) -> None:
    def run() -> bytes:
        return client.containers.run(
            IMAGE, ["python3", "-c", "print('hello')"], labels={"cortex.probe": "test"}, remove=True, **HARDENED
        )

    assert await asyncio.to_thread(run) == b"hello\n"
    assert (await asyncio.to_thread(client.version))["ApiVersion"]


async def test_a_container_that_would_own_the_host_is_refused_before_docker_sees_it(client: Any) -> None:
    def create(**options: Any) -> Any:
        return client.containers.create(IMAGE, ["true"], **options)

    ours = {"labels": {"cortex.managed": "1"}}
    for options in (
        HARDENED,
        ours | HARDENED | {"privileged": True},
        ours | HARDENED | {"volumes": {"/": {"bind": "/host", "mode": "ro"}}},
        ours | HARDENED | {"network_mode": "host"},
        ours,
    ):
        with pytest.raises(APIError, match="refused by the socket proxy") as refused:
            await asyncio.to_thread(create, **options)
        assert refused.value.status_code == 403


async def test_a_container_of_somebody_else_cannot_be_touched(client: Any) -> None:
    direct = await asyncio.to_thread(docker.from_env)
    foreign = await asyncio.to_thread(direct.containers.create, IMAGE, ["true"])
    try:
        for act in (client.api.start, client.api.stop, client.api.remove_container, client.api.inspect_container):
            with pytest.raises(APIError, match="is not one of Cortex"):
                await asyncio.to_thread(act, foreign.id)
        assert (await asyncio.to_thread(direct.containers.get, foreign.id)).status == "created"
    finally:
        await asyncio.to_thread(foreign.remove, force=True)
        await asyncio.to_thread(direct.close)


async def test_no_command_can_be_run_inside_an_engine(client: Any) -> None:
    with pytest.raises(APIError, match="refused by the socket proxy"):
        await asyncio.to_thread(client.api.exec_create, "x", "sh")
    with pytest.raises(APIError, match="refused by the socket proxy"):
        await asyncio.to_thread(client.volumes.create, "x")
