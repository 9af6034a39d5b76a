"""What befalls a Docker engine and its containers behind the orchestrator's back: it converges and says why.

The engine is a real one of the test's own, so that it may be stopped, killed and filled up.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import DesiredState, ReplicaState
from cortex_contracts.operations import LogsChunkV1
from cortex_contracts.streams import NODES
from cortex_kit.bus import Bus
from cortex_kit.ids import uuid7
from cortex_kit.log_follow import follow_logs

sys.path.insert(0, str(Path(__file__).parents[1]))
from faulty_host import CONFIG, IMAGE, Host, serves_images
from private_engine import PrivateEngine, why_not
from slim_image import llama_layer

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_not() is not None, reason=f"no Docker engine of one's own: {why_not()}"),
]

MIB = 1024 * 1024
OCCUPY = """
import socket, sys
held = []
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    held.append(socket.socket())
    held[-1].bind(("127.0.0.1", port))
    held[-1].listen()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def layer(llama_server_binary: Path) -> bytes:
    return llama_layer(llama_server_binary)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short: the path of a socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="cx", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def engine(folder: Path, layer: bytes) -> Iterator[PrivateEngine]:
    made = PrivateEngine(folder / "engine")
    try:
        made.start()
        made.load(IMAGE, layer, CONFIG)
        yield made
    finally:
        made.close()


@pytest.fixture
def small_engine(folder: Path, layer: bytes) -> Iterator[PrivateEngine]:
    """One whose disk holds the packed layer, but not what is in it."""
    made = PrivateEngine(folder / "small", disk_bytes=len(layer) + 16 * MIB)
    try:
        made.start()
        yield made
    finally:
        made.close()


MakeHost = Callable[[PrivateEngine, str], Host]


@pytest.fixture
async def make_host(cluster: Any) -> AsyncIterator[MakeHost]:
    made: list[Host] = []

    def make(engine: PrivateEngine, image: str) -> Host:
        made.append(Host(cluster, engine, image))
        return made[-1]

    yield make
    for process in cluster.processes:
        process.kill()
    for host in made:
        for container in host.containers():
            container.remove(force=True)


def another(model: ModelDocumentV1) -> ModelDocumentV1:
    return model.model_copy(update={"id": ModelId(uuid7())})


async def test_a_docker_engine_that_is_stopped_or_killed_comes_back_to_what_is_desired(
    cluster: Any, engine: PrivateEngine, make_host: MakeHost, llama_model: ModelDocumentV1
) -> None:
    host = make_host(engine, IMAGE)
    first, second = llama_model, another(llama_model)
    orchestrator = cluster.start()
    await cluster.put(first)
    await host.serves(first)

    await asyncio.to_thread(engine.stop)
    troubled = await cluster.until(
        lambda: trouble_of(cluster, first), "the document says that nothing is seen", timeout=90
    )
    assert "the Docker engine cannot be reached" in troubled
    assert "it is stopped" in troubled
    await cluster.put(second)
    assert await cluster.until(lambda: trouble_of(cluster, second), "a new model says what it waits for", timeout=90)
    assert orchestrator.poll() is None
    await asyncio.to_thread(engine.start)
    await host.serves(first, second)
    assert host.failures(first) == ["runtime_restarted"]
    assert host.failures(second) == []

    await asyncio.to_thread(engine.stop, signal.SIGKILL)
    await cluster.until(lambda: trouble_of(cluster, first), "the engine's death is told", timeout=90)
    orchestrator.kill()
    orchestrator.wait(timeout=10)
    successor = cluster.start()
    await asyncio.to_thread(engine.start)
    await host.serves(first, second)
    assert successor.poll() is None
    await cluster.put(first.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.delete(second)
    await cluster.until(lambda: not host.containers(), "nothing is left", timeout=90)


async def trouble_of(cluster: Any, model: ModelDocumentV1) -> str | None:
    document = await cluster.replica(model)
    return document.trouble if document is not None else None


async def test_what_is_removed_by_hand_is_made_again_and_said_to_be(
    cluster: Any, engine: PrivateEngine, make_host: MakeHost, llama_model: ModelDocumentV1
) -> None:
    host = make_host(engine, IMAGE)
    cluster.start()
    await cluster.put(llama_model)
    await host.serves(llama_model)
    removed_before = cluster.subjects().count("container.removed")
    # Removing by force kills first: an orchestrator that looks between the two tells of a SIGKILL, which is as true.
    cluster.processes[-1].send_signal(signal.SIGSTOP)
    host.containers()[0].remove(force=True)
    cluster.processes[-1].send_signal(signal.SIGCONT)
    await cluster.until(
        lambda: cluster.subjects().count("container.removed") > removed_before, "the removal is told", timeout=90
    )
    assert cluster.event("container.removed")["reason"] == "somebody else removed it"
    await host.serves(llama_model)

    client = engine.client()
    network = client.networks.get(host.network)
    network.disconnect(host.containers()[0].name, force=True)
    network.remove()
    stopped = await cluster.until(lambda: cluster.event("container.stopped"), "the lost engine is stopped", timeout=90)
    assert f"somebody took it off its network {host.network}" in stopped["reason"]
    await host.serves(llama_model)
    assert [one.name for one in client.networks.list(names=[f"^{host.network}$"])] == [host.network]

    client.networks.create(host.network, driver="bridge")
    host.containers()[0].remove(force=True)
    await cluster.until(lambda: "ambiguous" in str(cluster.event("container.failed")), "the second one is told", 90)
    await host.serves(llama_model)
    assert len(client.networks.list(names=[f"^{host.network}$"])) == 1
    client.close()


async def test_taken_host_ports_are_told_and_others_are_found(
    cluster: Any, engine: PrivateEngine, make_host: MakeHost, llama_model: ModelDocumentV1
) -> None:
    """Docker takes the next free port by its own books, and gives up after ten that others hold."""
    host = make_host(engine, IMAGE)
    cluster.start()
    await cluster.put(llama_model)
    await host.serves(llama_model)
    document = await cluster.replica(llama_model)
    last = int(str(document.endpoint).rpartition(":")[2])
    command = engine.inside(sys.executable, "-c", OCCUPY, str(last + 1), str(last + 14))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as occupier:
        assert occupier.stdout is not None
        assert occupier.stdout.readline() == b"held\n"
        other = another(llama_model)
        await cluster.put(other)
        await cluster.until(lambda: host.failures(other), "the taken ports are told", timeout=90)
        assert host.failures(other)[0] == "port_in_use"
        await host.serves(llama_model, other)
        occupier.communicate(timeout=10)


async def test_a_full_disk_is_told_with_its_remedy_and_the_pull_goes_on_when_there_is_room(
    small_engine: PrivateEngine,
    cluster: Any,
    folder: Path,
    layer: bytes,
    make_host: MakeHost,
    llama_model: ModelDocumentV1,
) -> None:
    with serves_images(small_engine, folder, layer, 0.005) as images:
        host = make_host(small_engine, (await images.image())["reference"])
        cluster.start()
        await cluster.put(llama_model)
        failed = await cluster.until(lambda: failed_of(cluster, llama_model), "the full disk is told", timeout=90)
        assert failed.diagnosis.code == "disk_full"
        assert "no space left on device" in failed.reason
        assert "docker system df" in failed.diagnosis.fix
        pulls = [event["data"] for subject, event in cluster.events if subject == "container.pulling"]
        assert max(pull.get("current_bytes", 0) for pull in pulls) > MIB
        assert max(pull.get("total_bytes", 0) for pull in pulls) >= len(layer)
        assert host.containers() == []

        small_engine.grow_disk(512 * MIB)
        await host.serves(llama_model)


async def test_a_pull_whose_orchestrator_is_killed_is_made_again_once_for_all_who_wait(
    cluster: Any,
    engine: PrivateEngine,
    folder: Path,
    layer: bytes,
    make_host: MakeHost,
    llama_model: ModelDocumentV1,
) -> None:
    models = [llama_model, another(llama_model)]
    with serves_images(engine, folder, layer, 0.01) as images:
        image = await images.image()
        host = make_host(engine, image["reference"])
        orchestrator = cluster.start()
        for model in models:
            await cluster.put(model)

        async def all_pull() -> bool:
            documents = [await cluster.replica(model) for model in models]
            return all(document and document.pull and document.pull.current_bytes for document in documents)

        await cluster.until(all_pull, "both show bytes of the pull", timeout=90)
        assert images.layers_served == 1
        orchestrator.kill()
        orchestrator.wait(timeout=10)
        successor = cluster.start()
        await host.serves(*models)
        assert images.layers_served == 2
        with contextlib.closing(engine.client()) as client:
            assert len(client.networks.list(names=[f"^{host.network}$"])) == 1, "two who start at once made two"

        async def recorded() -> bool:
            entry = await (await cluster.jetstream.key_value(NODES.name)).get(host.node)
            engines = NodeDocumentV1.model_validate_json(entry.value).engines
            return engines.get("llamacpp") == f"{image['reference']}@{image['digest']}"

        await cluster.until(recorded, "the digest is recorded", timeout=90)
        before = {container.id for container in host.containers()}
        successor.kill()
        successor.wait(timeout=10)
        cluster.extra["CORTEX_OFFLINE"] = "true"
        cluster.start()
        absent = another(llama_model).model_copy(update={"engine_image": image["reference"].replace(":one", ":two")})
        await cluster.put(absent)
        failed = await cluster.until(lambda: failed_of(cluster, absent), "offline nothing is pulled", timeout=90)
        assert failed.diagnosis.code == "image_missing"
        assert "docker load" in failed.reason
        await host.serves(*models)
        assert {container.id for container in host.containers()} == before
        assert images.layers_served == 2


async def test_the_log_of_a_container_is_read_live_with_its_history(
    cluster: Any, engine: PrivateEngine, make_host: MakeHost, llama_model: ModelDocumentV1
) -> None:
    host = make_host(engine, IMAGE)
    cluster.start()
    await cluster.put(llama_model)
    await host.serves(llama_model)
    document = await cluster.replica(llama_model)
    bus = Bus(SecretStr(cluster.server.url), name="reader")
    chunks: list[LogsChunkV1] = []

    async def read() -> None:
        async with aclosing(follow_logs(bus, NodeId(host.node), llama_model.id, tail=500)) as stream:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - looked at while it grows

    connection = asyncio.create_task(bus.run())
    async with asyncio.timeout(60):
        await bus.wait_connected()
    reading = asyncio.create_task(read())

    def text() -> str:
        return "\n".join(line for chunk in chunks for line in chunk.lines)

    await cluster.until(lambda: "loading model" in text(), "history arrives", timeout=90)
    before = len(text())
    await host.chat(document)
    await cluster.until(lambda: len(text()) > before, "what the engine says of a request arrives", timeout=90)
    await cluster.put(llama_model.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.until(lambda: chunks[-1].ended, "the end is told", timeout=90)
    assert chunks[-1].ended in ("the engine ended with exit code 0", "the engine was removed")
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    await reading
    connection.cancel()
    await asyncio.gather(connection, return_exceptions=True)


async def failed_of(cluster: Any, model: ModelDocumentV1) -> ReplicaDocumentV1 | None:
    document = await cluster.replica(model)
    return document if document is not None and document.state is ReplicaState.FAILED else None
