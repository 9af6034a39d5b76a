"""What is Swarm's own: the service as it was asked for, nodes out of reach, refusals, and an orchestrator on top."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import docker
import pytest

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, ReplicaState, RuntimeKind
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.ids import uuid7
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import EngineLimits
from cortex_orchestrator.adapters.swarm_mapping import SwarmPlace
from cortex_orchestrator.adapters.swarm_runtime import SwarmRuntime
from cortex_orchestrator.domain.observed import Phase
from cortex_orchestrator.domain.spec import ContainerSpec, StopPolicy

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

NETWORK = "cortex-swarm-test"
MIB = 1024 * 1024
MakeSpec = Callable[..., ContainerSpec]


@pytest.fixture
def client(swarm_required: None) -> Iterator[Any]:
    made = docker.from_env(timeout=30)
    yield made
    made.close()


@pytest.fixture
def node(client: Any) -> Iterator[str]:
    name = f"swarm-{uuid7()[-8:]}"
    yield name
    for service in client.services.list(filters={"label": f"cortex.node={name}"}):
        service.remove()


@pytest.fixture
async def far(node: str) -> AsyncIterator[SwarmRuntime]:
    """A runtime for a node whose containers cannot be reached."""
    made = SwarmRuntime(DockerEngine(), SwarmPlace(NETWORK, node, publish=True), signals=False)
    yield made
    for seen in await made.list_owned():
        await made.remove(seen.replica_id)
    await made.close()


async def test_the_service_was_asked_for_with_every_limit(client: Any, node: str, make_spec: MakeSpec) -> None:
    limits = EngineLimits(pids=77, cpus=0.5, tmpfs_bytes=8 * MIB)
    runtime = SwarmRuntime(DockerEngine(), SwarmPlace(NETWORK, node, limits=limits))
    spec = make_spec(node=node, memory_bytes=64 * MIB)
    await runtime.create(spec, {"ENGINE_KEY": "sesame"})
    seen = await runtime.start(spec.replica_id)
    assert seen.endpoint == f"http://{spec.name}:8000"
    template = client.api.inspect_service(spec.name)["Spec"]["TaskTemplate"]
    asked = template["ContainerSpec"]
    assert (asked["ReadOnly"], asked["Init"], asked["CapabilityDrop"]) == (True, True, ["ALL"])
    assert template["RestartPolicy"]["Condition"] == "none"
    assert template["Placement"]["Constraints"] == [f"node.id=={client.info()['Swarm']['NodeID']}"]
    (container,) = client.containers.list(filters={"label": f"cortex.task-of={node}"})
    host = container.attrs["HostConfig"]
    assert (host["PidsLimit"], host["NanoCpus"], host["Memory"]) == (77, 500_000_000, 64 * MIB)
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert not any((container.attrs["NetworkSettings"]["Ports"] or {}).values())
    assert client.containers.list(filters={"label": "cortex.managed=1", "name": spec.name}) == []
    await runtime.remove(spec.replica_id)
    assert client.containers.list(filters={"label": f"cortex.task-of={node}"}) == []
    await runtime.close()


async def test_an_engine_out_of_reach_is_stopped_followed_and_removed_by_swarm_alone(
    far: SwarmRuntime, node: str, make_spec: MakeSpec
) -> None:
    spec = make_spec(node=node, stop=StopPolicy(5.0))
    await far.create(spec, {})
    await far.start(spec.replica_id)
    lines: list[str] = []

    async def follow() -> None:
        async with aclosing(far.follow(spec.replica_id, 10)) as batches:
            async for batch in batches:
                lines.extend(batch)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        while "mode serve" not in lines:
            await asyncio.sleep(0.1)
    assert "first line" in await far.logs(spec.replica_id, 10)
    await far.stop(spec.replica_id, StopPolicy(5.0))
    (seen,) = await far.list_owned()
    assert seen.phase is Phase.EXITED
    async with asyncio.timeout(60):
        await following
    assert "sigterm 1" in lines
    await far.remove(spec.replica_id)
    assert await far.list_owned() == ()


async def test_a_deaf_engine_out_of_reach_is_killed_by_its_grace_period(
    client: Any, far: SwarmRuntime, node: str, make_spec: MakeSpec
) -> None:
    spec = make_spec("deaf", node=node, stop=StopPolicy(1.0))
    await far.create(spec, {})
    await far.start(spec.replica_id)
    await far.stop(spec.replica_id, StopPolicy(1.0))
    assert (await far.list_owned())[0].phase is Phase.EXITED
    assert client.containers.list(filters={"label": f"cortex.task-of={node}"}) == []


async def test_gpus_that_no_node_has_to_reserve_are_refused_and_leave_nothing(node: str, make_spec: MakeSpec) -> None:
    runtime = SwarmRuntime(DockerEngine(), SwarmPlace(NETWORK, node, gpu_resource="NO-SUCH-GPU"))
    spec = make_spec(node=node, gpus=(0,))
    await runtime.create(spec, {})
    with pytest.raises(DomainError) as caught:
        await runtime.start(spec.replica_id)
    assert caught.value.code == "node_unsuitable"
    assert await runtime.list_owned() == ()
    await runtime.close()


async def test_a_node_that_the_swarm_does_not_have_is_told(client: Any, node: str) -> None:
    runtime = SwarmRuntime(DockerEngine(), SwarmPlace(NETWORK, node, swarm_node="elsewhere"))
    with pytest.raises(TransientError, match="no node 'elsewhere'"):
        await runtime.list_owned()
    await runtime.close()


async def test_a_network_of_another_kind_with_that_name_is_not_taken(
    client: Any, node: str, make_spec: MakeSpec
) -> None:
    bridge = client.networks.create(f"bridge-{node}", driver="bridge")
    runtime = SwarmRuntime(DockerEngine(), SwarmPlace(bridge.name, node))
    try:
        with pytest.raises(DomainError) as caught:
            await runtime.create(make_spec(node=node), {})
        assert caught.value.code == "network_taken"
    finally:
        bridge.remove()
        await runtime.close()


async def test_a_model_is_served_by_a_swarm_service(
    cluster: Any, client: Any, node: str, llama_image: str, llama_model: ModelDocumentV1
) -> None:
    cluster.extra |= {
        "CORTEX_ORCHESTRATOR_RUNTIME": "swarm",
        "CORTEX_ORCHESTRATOR_NODE": node,
        "CORTEX_ORCHESTRATOR_LLAMACPP_IMAGE": llama_image,
        "CORTEX_ORCHESTRATOR_DOCKER_NETWORK": NETWORK,
        "CORTEX_ORCHESTRATOR_SWARM_PUBLISH": "true",
    }
    orchestrator = cluster.start()
    await cluster.put(llama_model)
    document = await cluster.wait_started(llama_model)
    assert document.runtime is RuntimeKind.SWARM
    assert await cluster.chat(document)
    orchestrator.kill()
    orchestrator.wait(timeout=10)
    cluster.start()
    adopted = await cluster.until(lambda: cluster.event("container.adopted"), "the service is adopted")
    assert adopted["endpoint"] == document.endpoint
    await cluster.put(llama_model.model_copy(update={"restart_generation": 1}))

    async def changed() -> Any:
        replica = await cluster.replica(llama_model)
        started = replica is not None and replica.state is ReplicaState.STARTED
        return replica if started and replica.spec_hash != document.spec_hash else None

    successor = await cluster.until(changed, "the changed model is served", timeout=90)
    assert await cluster.chat(successor)
    assert len(client.services.list(filters={"label": f"cortex.node={node}"})) == 1
    removed = cluster.subjects().count("container.removed")
    client.services.list(filters={"label": f"cortex.node={node}"})[0].remove()
    await cluster.until(
        lambda: cluster.subjects().count("container.removed") > removed, "a removal by hand is told", timeout=60
    )
    assert cluster.event("container.removed")["reason"] == "somebody else removed it"
    assert await cluster.chat(await cluster.until(changed, "it is made again", timeout=90))
    stops = cluster.subjects().count("container.stopped")
    await cluster.put(llama_model.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.until(
        lambda: cluster.subjects().count("container.stopped") > stops, "the engine is stopped", timeout=60
    )
    assert cluster.event("container.stopped")["exit_code"] == 0
    await cluster.until(
        lambda: not client.services.list(filters={"label": f"cortex.node={node}"}), "the service is removed", timeout=60
    )
