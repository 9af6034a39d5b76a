"""The same journeys with a real llama-server in a real, hardened container."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any, cast

import docker
import pytest

from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState
from cortex_contracts.streams import NODES
from cortex_kit.ids import uuid7
from cortex_orchestrator.adapters.docker_catalog import CatalogSettings, DockerCatalog
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.domain.engines import ENGINES

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]


@pytest.fixture
def containers(llama_image: str, cluster: Any) -> Iterator[Any]:
    """Point the cluster at Docker; gives a function that lists this test's containers."""
    node = f"docker-{uuid7()[-8:]}"
    cluster.extra |= {
        "CORTEX_ORCHESTRATOR_RUNTIME": "docker",
        "CORTEX_ORCHESTRATOR_NODE": node,
        "CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE": llama_image,
        "CORTEX_ORCHESTRATOR_DOCKER_NETWORK": "cortex-engines-test",
    }
    client = docker.from_env(timeout=30)

    def owned() -> list[Any]:
        return client.containers.list(all=True, filters={"label": f"cortex.node={node}"})

    yield owned
    for container in owned():
        container.remove(force=True)
    client.close()


async def test_a_model_in_a_container_starts_chats_survives_crashes_and_stops(
    cluster: Any, containers: Any, llama_model: ModelDocumentV1
) -> None:
    orchestrator = cluster.start()
    await cluster.put(llama_model)
    first = await cluster.wait_started(llama_model)
    assert first.endpoint.startswith("http://127.0.0.1:")
    assert await cluster.chat(first)
    (container,) = containers()
    assert container.name == f"llamacpp-model-{llama_model.id}-0"
    _assert_hardened(container.attrs)
    node = await _node(cluster)
    assert node.engines["llamacpp"].startswith("cortex/llamacpp-server:test@sha256:")

    orchestrator.send_signal(signal.SIGKILL)
    orchestrator.wait(timeout=10)
    assert await cluster.chat(first)
    cluster.start()
    adopted = await cluster.until(lambda: cluster.event("container.adopted"), "the container is adopted")
    assert adopted["endpoint"] == first.endpoint

    container.kill(signal="SIGKILL")
    failed = await cluster.until(lambda: cluster.event("container.failed"), "the crash is reported")
    assert failed["exit_code"] == 137
    assert failed["oom_killed"] is False
    second = await cluster.wait_started(llama_model, not_endpoint=first.endpoint)
    assert await cluster.chat(second)

    await cluster.put(llama_model.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.until(lambda: "container.removed" in cluster.subjects(), "the container is removed")
    assert cluster.event("container.stopped")["exit_code"] == 0
    assert containers() == []


async def _node(cluster: Any) -> NodeDocumentV1:
    async def known() -> NodeDocumentV1 | None:
        entry = await (await cluster.jetstream.key_value(NODES.name)).get(
            cluster.environment["CORTEX_ORCHESTRATOR_NODE"]
        )
        document = NodeDocumentV1.model_validate_json(entry.value)
        return document if document.engines else None

    return cast(NodeDocumentV1, await cluster.until(known, "the node tells its engines"))


def _assert_hardened(attributes: dict[str, Any]) -> None:
    host = attributes["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["PidsLimit"] == 4096
    assert all(binding["HostIp"] == "127.0.0.1" for ports in host["PortBindings"].values() for binding in ports)
    (mount,) = attributes["Mounts"]
    assert (mount["Destination"], mount["RW"]) == ("/models", False)
    assert attributes["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert attributes["Config"]["User"] == "10001:10001"


async def test_stop_engines_removes_containers_without_nats(
    cluster: Any, containers: Any, llama_model: ModelDocumentV1
) -> None:
    orchestrator = cluster.start()
    await cluster.put(llama_model)
    await cluster.wait_started(llama_model)
    orchestrator.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(orchestrator.wait, 20) == 0
    assert len(containers()) == 1
    cluster.server.stop()
    assert "removed" in cluster.stop_engines()
    assert containers() == []
    cluster.server.start()


async def test_a_gpu_without_the_nvidia_runtime_is_a_clear_failure(
    cluster: Any, containers: Any, llama_model: ModelDocumentV1
) -> None:
    client = docker.from_env(timeout=30)
    runtimes = client.info()["Runtimes"]
    client.close()
    if "nvidia" in runtimes:
        pytest.skip("this engine has the NVIDIA runtime")
    cluster.start()
    await cluster.put(llama_model.model_copy(update={"placement": (0,)}))

    async def failed() -> Any:
        document = await cluster.replica(llama_model)
        return document and document.state is ReplicaState.FAILED and document

    document = await cluster.until(failed, "the failure is reported")
    assert "NVIDIA Container Toolkit" in document.reason
    assert document.next_attempt_at is not None
    assert containers() == []


async def test_the_options_of_an_image_are_read_once_from_its_own_help(llama_image: str) -> None:
    defaults = {EngineType.LLAMACPP: llama_image}
    catalog = DockerCatalog(DockerEngine(), CatalogSettings(defaults, "help"))
    engine = ENGINES[EngineType.LLAMACPP]
    first = await catalog.find(engine, None, lambda *_: None)
    assert "--ctx-size" in first.capabilities.flags
    assert await catalog.find(engine, llama_image, lambda *_: None) == first
    client = docker.from_env(timeout=30)
    assert client.containers.list(all=True, filters={"label": "cortex.probe=help"}) == []
    client.close()
