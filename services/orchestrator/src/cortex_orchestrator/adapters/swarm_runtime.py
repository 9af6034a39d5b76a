"""Engines as Docker Swarm services, owned by their labels. Talks to a manager; signals containers of its own node."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, cast

from docker.errors import APIError, NotFound

from cortex_contracts.base import ModelId, ReplicaId, replica_id
from cortex_contracts.enums import RuntimeKind
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_streams import Refused
from cortex_orchestrator.adapters.log_end import until_ended
from cortex_orchestrator.adapters.log_lines import clean
from cortex_orchestrator.adapters.swarm_mapping import (
    LABEL_STOPPED,
    LABEL_TASK_OF,
    NANO,
    Node,
    SwarmPlace,
    container_id,
    ended,
    newest,
    observed,
    refusal,
    service,
)
from cortex_orchestrator.domain.observed import Exit, Observed, Phase
from cortex_orchestrator.domain.spec import (
    LABEL_MANAGED,
    LABEL_MODEL,
    LABEL_NODE,
    LABEL_ORDINAL,
    ContainerSpec,
    StopPolicy,
)

log = get_logger()

POLL_S = 0.2
START_S = 120.0
"""Until a task runs. The catalog has fetched the image on this node already; another node fetches it in this time."""
GONE_S = 30.0
SCALE_TRIES = 20
CONFLICT = 409
SWARM_HINT = "this Docker engine is no swarm manager: docker swarm init, or set CORTEX_ORCHESTRATOR_RUNTIME=docker"


@dataclass(frozen=True, slots=True)
class _Found:
    """A service, its newest task, and the task's container if it is on the engine we talk to."""

    service: Mapping[str, Any]
    task: Mapping[str, Any] | None
    container: Mapping[str, Any] | None

    @property
    def id(self) -> str:
        return str(self.service["ID"])


class SwarmRuntime:
    """EngineRuntime over the services of one swarm node.

    `signals` False never touches a container, as for a node whose engine we cannot reach: a stop is then one SIGTERM
    and Swarm's own SIGKILL at the end of the grace period the service was created with.
    """

    def __init__(self, engine: DockerEngine, place: SwarmPlace, *, signals: bool = True) -> None:
        self._engine = engine
        self._place = place
        self._signals = signals
        self._node: Node | None = None

    @property
    def kind(self) -> RuntimeKind:
        return RuntimeKind.SWARM

    async def list_owned(self) -> Sequence[Observed]:
        """Every service with our label and this node's name."""
        node = await self._node_now()
        found = await self._engine.call("listing engines", lambda client: self._list(client, ()))
        seen = (self._observed(one, node) for one in found)
        return tuple(one for one in seen if one is not None)

    async def create(self, spec: ContainerSpec, secrets: Mapping[str, str], restarts: int = 0) -> Observed:
        """Create the service without a task and, the first time, the overlay network."""
        node = await self._node_now()
        await self._engine.call(f"making the network {self._place.network}", self._ensure_network)
        asked = service(spec, {**spec.command.env, **secrets}, restarts, self._place, node.id)

        def create(client: Any) -> None:
            try:
                client.api.create_service(
                    asked.task_template,
                    name=asked.name,
                    labels=asked.labels,
                    mode={"Replicated": {"Replicas": 0}},
                    endpoint_spec=asked.endpoint_spec,
                )
            except APIError as error:
                if error.status_code != CONFLICT:
                    raise

        await self._engine.call(f"creating {spec.name}", create)
        seen = await self._observe(spec.replica_id)
        if seen is None or seen.identity.spec_hash != spec.hash:
            raise DomainError("name_taken", f"a service named {spec.name} exists and is another one", status=409)
        return seen

    async def start(self, replica_id: ReplicaId) -> Observed:
        """Scale to one and wait for the task to run; a service whose task is refused is removed again."""
        found = await self._find(replica_id)
        if found is None:
            raise DomainError("not_created", f"replica {replica_id} has no service")
        try:
            await self._scale(found.id, 1)
            return await self._wait_running(replica_id)
        except (DomainError, TransientError):
            with suppress(DomainError, TransientError):
                await self.remove(replica_id)
            raise

    async def stop(self, replica_id: ReplicaId, policy: StopPolicy) -> Exit:
        """Signals by our own clock where the container can be reached, otherwise by scaling to zero."""
        found = await self._find(replica_id)
        if found is None:
            return Exit(None)
        seen = self._observed(found, await self._node_now())
        if seen is None or seen.phase is not Phase.RUNNING:
            return seen.exit if seen is not None and seen.exit is not None else Exit(None)
        if found.container is not None:
            await self._signal_until_ended(replica_id, found, policy)
        elif not await self._scaled_down(replica_id, found):
            raise TransientError(f"the task of {seen.container} does not end")
        last = await self._find(replica_id)
        if last is None:
            return Exit(None)
        return ended(last.task or found.task, last.container)

    async def remove(self, replica_id: ReplicaId) -> None:
        """Kill what runs, remove the service, and wait until its container has let go of its memory."""
        for found in await self._find_all(replica_id):
            if found.container is not None:
                await self._kill(found, "SIGKILL")
            elif found.task is not None and not await self._scaled_down(replica_id, found):
                log.warning("task_outlives_its_service", replica_id=replica_id)
            with suppress(NotFound):
                await self._engine.call(
                    f"removing replica {replica_id}", lambda client, it=found.id: client.api.remove_service(it)
                )
            await self._wait_gone(container_id(found.task))

    async def logs(self, replica_id: ReplicaId, tail: int) -> Sequence[str]:
        found = await self._find(replica_id)
        if found is None or found.task is None:
            return ()

        def read(client: Any) -> bytes:
            if found.container is not None:
                return bytes(client.api.logs(found.container["Id"], tail=tail))
            pieces = client.api.service_logs(found.id, stdout=True, stderr=True, tail=tail, is_tty=False)
            return b"".join(pieces)

        try:
            raw = await self._engine.call(f"reading the logs of replica {replica_id}", read)
        except NotFound:
            return ()
        return tuple(clean(line) for line in raw.decode(errors="replace").split("\n")[:-1])

    async def follow(self, replica_id: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """The container's log where it can be reached, otherwise the service's, which does not end by itself."""
        found = await self._find(replica_id)
        if found is None:
            return
        own = found.container is not None
        path = f"containers/{container_id(found.task)}/logs" if own else f"services/{found.id}/logs"
        try:
            async with aclosing(self._engine.output(path, tail)) as batches:
                lines = batches if own else until_ended(batches, lambda: self._over(replica_id))
                async with aclosing(lines):
                    async for batch in lines:
                        yield batch
        except Refused as error:
            if error.status != 404:
                raise TransientError(f"following replica {replica_id}: {error.message}") from error

    async def watch(self) -> AsyncIterator[ReplicaId | None]:
        """Events of the containers on our own engine. Tasks of another node are seen by the periodic look only."""
        filters: dict[str, object] = {
            "type": ["container"],
            "event": ["start", "die", "oom", "destroy"],
            "label": [f"{LABEL_TASK_OF}={self._place.node}"],
        }
        async with aclosing(self._engine.events(filters)) as events:
            async for event in events:
                if event is None:
                    yield None
                    continue
                attributes = cast("dict[str, str]", event["Actor"]["Attributes"])
                with suppress(KeyError, ValueError):
                    yield replica_id(ModelId(attributes[LABEL_MODEL]), int(attributes[LABEL_ORDINAL]))

    async def close(self) -> None:
        self._engine.close()

    async def _node_now(self) -> Node:
        """The node that engines run on: the configured one, or the one we talk to."""
        if self._node is None:
            self._node = await self._engine.call("looking at the swarm", self._find_node)
        return self._node

    def _find_node(self, client: Any) -> Node:
        swarm = cast("dict[str, Any]", client.info()["Swarm"])
        if not swarm.get("ControlAvailable"):
            raise TransientError(SWARM_HINT)
        wanted = self._place.swarm_node
        if wanted is None:
            return Node(str(swarm["NodeID"]), str(swarm["NodeAddr"]))
        for node in cast("list[dict[str, Any]]", client.api.nodes()):
            if wanted in (node["ID"], node["Description"]["Hostname"]):
                return Node(str(node["ID"]), str(node["Status"].get("Addr", "")))
        raise TransientError(f"the swarm has no node {wanted!r}")

    def _list(self, client: Any, labels: Sequence[str]) -> list[_Found]:
        wanted = [f"{LABEL_MANAGED}=1", f"{LABEL_NODE}={self._place.node}", *labels]
        try:
            services = cast("list[dict[str, Any]]", client.api.services(filters={"label": wanted}))
            ids = [str(one["ID"]) for one in services]
            tasks = cast("list[dict[str, Any]]", client.api.tasks(filters={"service": ids})) if ids else []
        except APIError as error:
            if error.status_code != 503:
                raise
            self._node = None
            raise TransientError(SWARM_HINT) from error
        present = {one: newest([task for task in tasks if task["ServiceID"] == one]) for one in ids}
        return [
            _Found(one, present[str(one["ID"])], self._inspect(client, present[str(one["ID"])])) for one in services
        ]

    def _inspect(self, client: Any, task: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The task's container; none when it is on another node, not made yet, or cleaned up already."""
        identity = container_id(task)
        if identity is None or not self._signals:
            return None
        try:
            return cast("dict[str, Any]", client.api.inspect_container(identity))
        except NotFound:
            return None

    def _observed(self, found: _Found, node: Node) -> Observed | None:
        return observed(found.service, found.task, found.container, self._place, node)

    async def _find_all(self, replica: ReplicaId) -> list[_Found]:
        model, _, ordinal = replica.rpartition("-")
        labels = (f"{LABEL_MODEL}={model}", f"{LABEL_ORDINAL}={ordinal}")
        return await self._engine.call(f"looking for replica {replica}", lambda client: self._list(client, labels))

    async def _find(self, replica: ReplicaId) -> _Found | None:
        return next(iter(await self._find_all(replica)), None)

    async def _observe(self, replica: ReplicaId) -> Observed | None:
        found = await self._find(replica)
        return None if found is None else self._observed(found, await self._node_now())

    def _ensure_network(self, client: Any) -> None:
        name = self._place.network
        found = client.networks.list(names=[f"^{name}$"])
        if any(one.attrs["Driver"] == "overlay" for one in found):
            return
        if found:
            text = f"a network {name} exists and is no overlay: set CORTEX_ORCHESTRATOR_DOCKER_NETWORK to another name"
            raise DomainError("network_taken", text, status=409)
        try:
            client.networks.create(name, driver="overlay", attachable=True, labels={LABEL_MANAGED: "1"})
        except APIError as error:
            if error.status_code != CONFLICT:
                raise

    async def _scale(self, identity: str, replicas: int) -> None:
        """Set the number of tasks. A service that was scaled down by us says so, since its task soon leaves no trace."""

        def scale(client: Any) -> bool:
            current = client.api.inspect_service(identity)
            labels = {**current["Spec"]["Labels"], **({LABEL_STOPPED: "1"} if replicas == 0 else {})}
            mode = {"Replicated": {"Replicas": replicas}}
            version = current["Version"]["Index"]
            try:
                client.api.update_service(identity, version, labels=labels, mode=mode, fetch_current_spec=True)
            except APIError as error:
                if "out of sequence" not in str(error.explanation):
                    raise
                return False  # Swarm itself wrote to the service meanwhile, as it does right after its creation
            return True

        try:
            for _ in range(SCALE_TRIES):
                if await self._engine.call(f"scaling service {identity}", scale):
                    return
                await asyncio.sleep(POLL_S)
        except NotFound as error:
            raise TransientError(f"service {identity} vanished") from error
        raise TransientError(f"service {identity} does not come to rest")

    async def _wait_running(self, replica: ReplicaId) -> Observed:
        deadline = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < deadline:
            found = await self._find(replica)
            if found is None:
                raise TransientError(f"the service of replica {replica} vanished")
            if found.task is not None:
                refused = refusal(found.task)
                if refused is not None:
                    raise refused
                seen = self._observed(found, await self._node_now())
                if seen is not None and (seen.phase is Phase.EXITED or _runs(found.task, seen, self._place)):
                    return seen
            await asyncio.sleep(POLL_S)
        raise DomainError("engine_start_failed", f"no task of replica {replica} ran within {START_S:g} s", status=503)

    async def _signal_until_ended(self, replica: ReplicaId, found: _Found, policy: StopPolicy) -> None:
        first = policy.second_term_s if policy.second_term_s is not None else policy.deadline_s
        await self._kill(found, "SIGTERM")
        if await self._wait_ended(replica, first):
            return
        if policy.second_term_s is not None:
            await self._kill(found, "SIGTERM")
            if await self._wait_ended(replica, policy.deadline_s - first):
                return
        log.warning("engine_killed", replica_id=replica, reason="it did not stop in time")
        await self._kill(found, "SIGKILL")
        if not await self._wait_ended(replica, GONE_S):
            raise TransientError(f"the container of replica {replica} does not end, even by SIGKILL")

    async def _scaled_down(self, replica: ReplicaId, found: _Found) -> bool:
        """One SIGTERM, and Swarm's SIGKILL at the end of the grace period that the service was created with."""
        grace = cast("dict[str, Any]", found.service["Spec"]["TaskTemplate"]["ContainerSpec"]).get("StopGracePeriod")
        await self._scale(found.id, 0)
        return await self._wait_ended(replica, (grace or 0) / NANO + GONE_S)

    async def _over(self, replica: ReplicaId) -> bool:
        seen = await self._observe(replica)
        return seen is None or seen.phase is Phase.EXITED

    async def _wait_ended(self, replica: ReplicaId, timeout_s: float) -> bool:
        """Until the task itself is over: Swarm learns of a container's end a little later than Docker."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if await self._over(replica):
                return True
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(POLL_S)

    async def _wait_gone(self, identity: str | None) -> None:
        """Until the container is removed or at least does not run; of another node nothing can be known."""
        if identity is None or not self._signals:
            return

        def runs(client: Any) -> bool:
            return bool(client.api.inspect_container(identity)["State"]["Running"])

        deadline = asyncio.get_running_loop().time() + GONE_S
        with suppress(NotFound):
            while await self._engine.call(f"waiting for the end of {identity}", runs):
                if asyncio.get_running_loop().time() >= deadline:
                    raise TransientError(f"container {identity} outlives its service")
                await asyncio.sleep(POLL_S)

    async def _kill(self, found: _Found, signum: str) -> None:
        def kill(client: Any) -> None:
            try:
                client.api.kill(container_id(found.task), signum)
            except APIError as error:
                if error.status_code not in (CONFLICT, 404):
                    raise

        await self._engine.call(f"signalling service {found.id}", kill)


def _runs(task: Mapping[str, Any], seen: Observed, place: SwarmPlace) -> bool:
    """The task runs and, where a port is published, says which one."""
    return str(task["Status"]["State"]) == "running" and (seen.endpoint is not None or not place.publish)
