"""Engines as hardened containers of one Docker engine, owned by their labels."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from docker.errors import APIError, NotFound

from cortex_contracts.base import ModelId, ReplicaId, replica_id
from cortex_contracts.enums import RuntimeKind
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import DockerPlace, creation, ended, observed
from cortex_orchestrator.adapters.docker_streams import CALL_TIMEOUT_S, Refused
from cortex_orchestrator.adapters.log_lines import clean
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
CREATION_S = 10.0
WATCHED_EVENTS = ("start", "die", "oom", "destroy")
HTTP_NOT_FOUND = 404
FORBIDDEN = 403
CONFLICT = 409


class DockerRuntime:
    """EngineRuntime over the Engine API."""

    def __init__(self, engine: DockerEngine, place: DockerPlace) -> None:
        self._engine = engine
        self._place = place
        self._network_known = False
        self._network_lock = asyncio.Lock()

    @property
    def kind(self) -> RuntimeKind:
        return RuntimeKind.DOCKER

    async def list_owned(self) -> Sequence[Observed]:
        """Every container with our label and this node's name."""
        found = await self._engine.call("listing engines", lambda client: self._list(client, ()))
        seen = (observed(cast("dict[str, Any]", container.attrs), self._place) for container in found)
        return tuple(one for one in seen if one is not None)

    async def create(self, spec: ContainerSpec, secrets: Mapping[str, str], restarts: int = 0) -> Observed:
        """Create the container and, the first time, the private network."""
        asked = creation(spec, {**spec.command.env, **secrets}, restarts, self._place)
        await self._ensure_network()
        try:
            await self._engine.call(f"creating {spec.name}", lambda client: _create(client, asked))
        except NotFound as error:
            self._network_known = False
            raise TransientError(f"creating {spec.name}: {error.explanation}") from error
        seen = await self._await_created(spec)
        if seen is None or seen.identity.spec_hash != spec.hash:
            raise DomainError("name_taken", f"a container named {spec.name} exists and is another one", status=409)
        return seen

    async def start(self, replica_id: ReplicaId) -> Observed:
        """Start the container; one that cannot be started is removed again."""
        container = await self._find(replica_id)
        if container is None:
            raise DomainError("not_created", f"replica {replica_id} has no container")
        try:
            await self._engine.call(f"starting {container.name}", lambda _: container.start())
            seen = await self._observe(replica_id)
        except NotFound as error:
            self._network_known = False
            with suppress(DomainError, TransientError):
                await self.remove(replica_id)
            raise TransientError(f"starting replica {replica_id}: {error.explanation}") from error
        except (DomainError, TransientError):
            self._network_known = False  # it may be what is missing: the next creation looks
            with suppress(DomainError, TransientError):
                await self.remove(replica_id)
            raise
        if seen is None:
            raise TransientError(f"the container of replica {replica_id} vanished")
        return seen

    async def stop(self, replica_id: ReplicaId, policy: StopPolicy) -> Exit:
        """Signals by our own clock: `docker stop` knows no second SIGTERM."""
        container = await self._find(replica_id)
        if container is None:
            return Exit(None)
        await self._signal(container, "SIGTERM")
        first = policy.second_term_s if policy.second_term_s is not None else policy.deadline_s
        end = await self._wait_ended(container, first)
        if end is None and policy.second_term_s is not None:
            await self._signal(container, "SIGTERM")
            end = await self._wait_ended(container, policy.deadline_s - first)
        if end is None:
            log.warning("engine_killed", replica_id=replica_id, reason="it did not stop in time")
            await self._signal(container, "SIGKILL")
            end = await self._wait_ended(container, CALL_TIMEOUT_S)
        if end is None:
            raise TransientError(f"{container.name} does not end, even by SIGKILL")
        return end

    async def remove(self, replica_id: ReplicaId) -> None:
        """Force the removal of the container and of its anonymous volumes."""
        for container in await self._find_all(replica_id):
            with suppress(NotFound):
                await self._engine.call(f"removing {container.name}", lambda _, it=container: _remove(it))

    async def logs(self, replica_id: ReplicaId, tail: int) -> Sequence[str]:
        container = await self._find(replica_id)
        if container is None:
            return ()
        try:
            raw = await self._engine.call(
                f"reading the logs of {container.name}", lambda _: bytes(container.logs(tail=tail))
            )
        except NotFound:
            return ()
        return tuple(clean(line) for line in raw.decode(errors="replace").split("\n")[:-1])

    async def follow(self, replica_id: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """One connection to the Docker engine for each reader; it ends with the container."""
        container = await self._find(replica_id)
        if container is None:
            return
        try:
            async with aclosing(self._engine.output(f"containers/{container.id}/logs", tail)) as batches:
                async for lines in batches:
                    yield lines
        except Refused as error:
            if error.status != HTTP_NOT_FOUND:
                raise TransientError(f"following {container.name}: {error.message}") from error

    async def watch(self) -> AsyncIterator[ReplicaId | None]:
        """Engine events, each from where the last connection broke off; after every connection one hint for all."""
        filters: dict[str, object] = {
            "type": ["container"],
            "event": list(WATCHED_EVENTS),
            "label": [f"{LABEL_MANAGED}=1", f"{LABEL_NODE}={self._place.node}"],
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

    def _list(self, client: Any, labels: Sequence[str]) -> list[Any]:
        wanted = [f"{LABEL_MANAGED}=1", f"{LABEL_NODE}={self._place.node}", *labels]
        return cast("list[Any]", client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True))

    async def _find_all(self, replica: ReplicaId) -> list[Any]:
        model, _, ordinal = replica.rpartition("-")
        labels = (f"{LABEL_MODEL}={model}", f"{LABEL_ORDINAL}={ordinal}")
        return await self._engine.call(f"looking for replica {replica}", lambda client: self._list(client, labels))

    async def _find(self, replica: ReplicaId) -> Any | None:
        return next(iter(await self._find_all(replica)), None)

    async def _observe(self, replica: ReplicaId) -> Observed | None:
        container = await self._find(replica)
        return None if container is None else observed(cast("dict[str, Any]", container.attrs), self._place)

    async def _await_created(self, spec: ContainerSpec) -> Observed | None:
        """The container, also one that somebody else is creating: its name is taken before it can be listed."""
        deadline = asyncio.get_running_loop().time() + CREATION_S
        while True:
            seen = await self._observe(spec.replica_id)
            if seen is not None:
                return seen
            foreign = await self._engine.call(f"looking for {spec.name}", lambda client: _exists(client, spec.name))
            if foreign or asyncio.get_running_loop().time() >= deadline:
                return await self._observe(spec.replica_id)
            await asyncio.sleep(POLL_S)

    async def _ensure_network(self) -> None:
        async with self._network_lock:
            if self._network_known:
                return
            await self._engine.call(
                f"making the network {self._place.network}", lambda client: _ensure_network(client, self._place)
            )
            self._network_known = True

    async def _signal(self, container: Any, signum: str) -> None:
        """A container that does not run any more needs no signal."""
        with suppress(NotFound):
            await self._engine.call(f"signalling {container.name}", lambda _: _kill(container, signum))

    async def _wait_ended(self, container: Any, timeout_s: float) -> Exit | None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                await self._engine.call(f"inspecting {container.name}", lambda _: container.reload())
            except NotFound:
                return Exit(None)
            seen = observed(cast("dict[str, Any]", container.attrs), self._place)
            if seen is None or seen.phase is not Phase.RUNNING:
                return ended(container.attrs["State"])
            if asyncio.get_running_loop().time() >= deadline:
                return None
            await asyncio.sleep(POLL_S)


def _create(client: Any, asked: Mapping[str, object]) -> None:
    """A conflict is no failure: somebody was faster, the caller looks again."""
    try:
        client.containers.create(**asked)
    except APIError as error:
        if error.status_code != CONFLICT:
            raise


def _exists(client: Any, name: str) -> bool:
    try:
        client.containers.get(name)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code != FORBIDDEN:  # a socket proxy's answer for a container that is not ours
            raise
    return True


def _remove(container: Any) -> None:
    """A removal that is already under way is a success."""
    if container.status == "paused":
        with suppress(APIError):
            container.unpause()
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        if error.status_code != CONFLICT:
            raise


def _kill(container: Any, signum: str) -> None:
    """A paused container takes no signal: somebody who stops it wants it awake first."""
    try:
        container.kill(signal=signum)
    except APIError as error:
        if error.status_code != CONFLICT and "paused" not in str(error.explanation).lower():
            raise
        container.reload()
        if container.status == "paused":
            container.unpause()
            container.kill(signal=signum)


def _ensure_network(client: Any, place: DockerPlace) -> None:
    """Docker lets two who ask at once both make one, and from then on refuses the name as ambiguous: one stays."""
    found = _networks(client, place)
    if not found:
        _make_network(client, place)
        found = _networks(client, place)
    for surplus in sorted(found, key=lambda network: str(network.attrs["Created"]), reverse=True):
        if len(found) > 1:
            with suppress(APIError):  # in use, or another who looks at the same moment was faster
                surplus.remove()
                found.remove(surplus)


def _networks(client: Any, place: DockerPlace) -> list[Any]:
    return cast("list[Any]", client.networks.list(names=[f"^{place.network}$"]))


def _make_network(client: Any, place: DockerPlace) -> None:
    try:
        client.networks.create(
            place.network, driver="bridge", check_duplicate=True, internal=place.internal, labels={LABEL_MANAGED: "1"}
        )
    except APIError as error:
        if error.status_code != CONFLICT:
            raise
