"""What only containers have: hardening as the engine sees it, foreign hands, a lost connection, a lost network."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import DockerPlace, EngineLimits
from cortex_orchestrator.adapters.docker_runtime import DockerRuntime
from cortex_orchestrator.domain.observed import Phase
from cortex_orchestrator.domain.spec import ContainerSpec, Mount, StopPolicy

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

NETWORK = "cortex-engines-test"
SOCKET = "/var/run/docker.sock"
MIB = 1024 * 1024


@pytest.fixture
def client(docker_engine_required: None) -> Iterator[Any]:
    made = docker.from_env(timeout=30)
    yield made
    made.close()


@pytest.fixture
def node(client: Any) -> Iterator[str]:
    name = f"runtime-{uuid7()[-8:]}"
    yield name
    for container in client.containers.list(all=True, filters={"label": f"cortex.node={name}"}):
        with contextlib.suppress(docker.errors.APIError):
            container.unpause()
        container.remove(force=True)


@pytest.fixture
async def runtime(node: str) -> AsyncIterator[DockerRuntime]:
    made = DockerRuntime(DockerEngine(), DockerPlace(NETWORK, True, node))
    yield made
    await made.close()


async def test_the_engine_was_told_every_limit(
    client: Any, node: str, make_spec: Callable[..., ContainerSpec], tmp_path: Path
) -> None:
    limits = EngineLimits(pids=77, cpus=0.5, tmpfs_bytes=8 * MIB, devices=("/dev/null",), device_groups=("44",))
    runtime = DockerRuntime(DockerEngine(), DockerPlace(NETWORK, True, node, limits))
    spec = make_spec(node=node, memory_bytes=64 * MIB, mounts=(Mount(str(tmp_path), "/models"),))
    await runtime.create(spec, {"ENGINE_KEY": "sesame"})
    await runtime.start(spec.replica_id)
    attributes = client.containers.get(spec.name).attrs
    host = attributes["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert (host["ReadonlyRootfs"], host["Init"], host["RestartPolicy"]["Name"]) == (True, True, "no")
    assert (host["PidsLimit"], host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (
        77,
        500_000_000,
        64 * MIB,
        64 * MIB,
    )
    assert host["Tmpfs"] == {"/tmp": f"rw,nosuid,nodev,size={8 * MIB}"}
    assert [device["PathOnHost"] for device in host["Devices"]] == ["/dev/null"]
    assert host["GroupAdd"] == ["44"]
    assert host["NetworkMode"] == NETWORK
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert host["IpcMode"] in ("private", "shareable")
    assert [(mount["Destination"], mount["RW"]) for mount in attributes["Mounts"]] == [("/models", False)]
    assert [binding["HostIp"] for binding in attributes["NetworkSettings"]["Ports"]["8000/tcp"]] == ["127.0.0.1"]
    assert "sesame" not in str(attributes["Config"]["Labels"]) + str(attributes["Config"]["Cmd"])
    await runtime.close()


async def test_without_publishing_the_engine_is_reached_by_name_on_a_network_without_a_way_out(
    client: Any, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    network = f"cortex-internal-{node}"
    runtime = DockerRuntime(DockerEngine(), DockerPlace(network, False, node, internal=True))
    spec = make_spec(node=node)
    await runtime.create(spec, {})
    seen = await runtime.start(spec.replica_id)
    assert seen.endpoint == f"http://{spec.name}:8000"
    attributes = client.containers.get(spec.name).attrs
    assert not any(attributes["NetworkSettings"]["Ports"].values())
    made = client.networks.get(network)
    assert made.attrs["Internal"] is True
    await runtime.remove(spec.replica_id)
    made.remove()
    await runtime.close()


async def test_a_network_removed_by_hand_is_made_again(
    client: Any, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    network = f"cortex-lost-{node}"
    runtime = DockerRuntime(DockerEngine(), DockerPlace(network, True, node))
    spec = make_spec(node=node)
    await runtime.create(spec, {})
    await runtime.remove(spec.replica_id)
    client.networks.get(network).remove()

    async def launch() -> None:
        await runtime.create(spec, {})
        await runtime.start(spec.replica_id)

    with contextlib.suppress(TransientError):
        await launch()
    await runtime.remove(spec.replica_id)
    await launch()
    assert (await runtime.list_owned())[0].phase is Phase.RUNNING
    await runtime.remove(spec.replica_id)
    client.networks.get(network).remove()
    await runtime.close()


async def test_a_name_in_foreign_hands_is_refused_and_left_alone(
    client: Any, runtime: DockerRuntime, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    spec = make_spec(node=node)
    foreign = client.containers.create("python:3.11-slim", ["true"], name=spec.name)
    try:
        with pytest.raises(DomainError) as caught:
            await runtime.create(spec, {})
        assert caught.value.code == "name_taken"
        await runtime.remove(spec.replica_id)
        foreign.reload()
    finally:
        foreign.remove(force=True)


async def test_two_who_create_the_same_replica_at_once_get_one_container(
    client: Any, runtime: DockerRuntime, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    spec = make_spec(node=node)
    seen = await asyncio.gather(*(runtime.create(spec, {}) for _ in range(3)))
    assert len({one.incarnation for one in seen}) == 1
    assert len(client.containers.list(all=True, filters={"label": f"cortex.node={node}"})) == 1


async def test_a_paused_engine_can_be_stopped_and_removed(
    client: Any, runtime: DockerRuntime, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    spec = make_spec(node=node)
    for finish in ("stop", "remove"):
        await runtime.create(spec, {})
        await runtime.start(spec.replica_id)
        await asyncio.sleep(0.5)
        client.containers.get(spec.name).pause()
        if finish == "stop":
            assert (await runtime.stop(spec.replica_id, StopPolicy(20))).code == 0
        await runtime.remove(spec.replica_id)
        assert await runtime.list_owned() == ()


async def test_a_container_knows_its_age_even_when_it_never_ran(
    runtime: DockerRuntime, node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    spec = make_spec(node=node)
    created = await runtime.create(spec, {})
    assert created.created_at is not None
    assert created.started_at is None


class Wire:
    """A socket in front of the Docker engine that a test can cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.AbstractServer | None = None

    async def up(self) -> None:
        self._server = await asyncio.start_unix_server(self._join, str(self.path))

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        self.path.unlink(missing_ok=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(SOCKET)
        self._writers |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}


@pytest.mark.skipif(not Path(SOCKET).exists(), reason="the Docker engine has no local socket")
async def test_what_happened_while_the_connection_was_lost_is_told_when_it_is_back(
    client: Any, runtime: DockerRuntime, node: str, make_spec: Callable[..., ContainerSpec], tmp_path: Path
) -> None:
    wire = Wire(tmp_path / "docker.sock")
    await wire.up()
    watching = DockerRuntime(DockerEngine(f"unix://{wire.path}"), DockerPlace(NETWORK, True, node))
    hints: list[object] = []

    async def collect() -> None:
        async for hint in watching.watch():
            hints.append(hint)  # noqa: PERF401 - it never ends

    async def until(check: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not check():
                await asyncio.sleep(0.05)

    collecting = asyncio.create_task(collect())
    await until(lambda: hints == [None])
    spec, other = make_spec(node=node), make_spec(node=node)
    await runtime.create(spec, {})
    await runtime.start(spec.replica_id)
    await until(lambda: spec.replica_id in hints)
    await wire.cut()
    hints.clear()
    await runtime.create(other, {})
    await runtime.start(other.replica_id)
    await runtime.remove(other.replica_id)
    assert hints == []
    await wire.up()
    await until(lambda: other.replica_id in hints)
    assert hints[0] is None
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    await watching.close()
    await wire.cut()


async def test_an_engine_that_is_not_there_is_transient_everywhere(
    node: str, make_spec: Callable[..., ContainerSpec]
) -> None:
    runtime = DockerRuntime(DockerEngine("tcp://127.0.0.1:1"), DockerPlace(NETWORK, True, node))
    spec = make_spec(node=node)
    with pytest.raises(TransientError):
        await runtime.list_owned()
    with pytest.raises(TransientError):
        await runtime.create(spec, {})
    with pytest.raises(TransientError):
        await anext(runtime.follow(spec.replica_id, 5))
    await runtime.close()
