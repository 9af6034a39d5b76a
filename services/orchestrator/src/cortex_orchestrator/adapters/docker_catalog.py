"""Engine images: fetched when they are not there, known by their digest, and asked what they can do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from docker.errors import NotFound

from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import repository_of
from cortex_orchestrator.adapters.docker_streams import CALL_TIMEOUT_S
from cortex_orchestrator.adapters.image_pulls import ImagePulls
from cortex_orchestrator.domain.engines.base import Engine
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import Capabilities, Program
from cortex_orchestrator.ports import OnProgress, Sight

log = get_logger()

PROBE_TIMEOUT_S = 120.0
PROBE_LINES = 20_000
PROBE_LEFTOVER_AGE = timedelta(minutes=10)
LABEL_PROBE = "cortex.probe"


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """`defaults` are the images of engines whose model names none; `offline` never pulls."""

    defaults: Mapping[EngineType, str]
    node: str
    offline: bool = False
    pull_timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Image:
    id: str
    digest: str | None

    @property
    def version(self) -> str:
        """What tells this image from every other: the registry's digest, or the local id of one that was built here."""
        return self.digest or self.id


class DockerCatalog:
    """EngineCatalog over images: the model's own, or the default of its engine."""

    def __init__(self, engine: DockerEngine, settings: CatalogSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._pulls = ImagePulls(engine, deadline_s=settings.pull_timeout_s)
        self._capabilities: dict[str, Capabilities] = {}
        self._versions: dict[str, str] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        """Engine type -> `image@digest` of the node's default images that were found so far."""
        return dict(self._versions)

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        """The image, pulled if it is not there and pulling is allowed. `version` is its digest.

        Raises:
            DomainError: `image_missing` when offline, `engine_broken`, and what ImagePulls says of a pull.
            TransientError: the Docker engine is away.
        """
        reference = image or self._settings.defaults[engine.type]
        found = await self._inspect(reference)
        if found is None:
            found = await self._fetch(reference, on_progress)
        if image is None:
            self._versions[engine.type.value] = f"{reference}@{found.version}"
        return await self._program(engine, reference, found)

    async def look(self, engine: Engine, image: str | None) -> Sight:
        """The image as it is here, or its name alone."""
        reference = image or self._settings.defaults[engine.type]
        found = await self._inspect(reference)
        if found is None:
            return Sight(Program(reference), present=False)
        return Sight(await self._program(engine, reference, found))

    async def _program(self, engine: Engine, reference: str, found: _Image) -> Program:
        program = Program(reference, version=found.version)
        if engine.lists_flags:
            return replace(program, capabilities=await self._capabilities_of(reference, found, engine))
        if not engine.must_ask(program):
            return program
        try:
            return replace(program, capabilities=await self._capabilities_of(reference, found, engine))
        except (DomainError, TransientError) as error:
            # The builder warns; an image that cannot even list its options will say so when it starts.
            log.warning("engine_not_inspected", image=reference, error=str(error))
            return program

    async def _fetch(self, reference: str, on_progress: OnProgress) -> _Image:
        if self._settings.offline:
            raise DomainError("image_missing", _offline_advice(reference), status=503)
        await self._pulls.pull(reference, on_progress)
        found = await self._inspect(reference)
        if found is None:
            # The stream of a pull ends quietly when the Docker engine goes away.
            raise TransientError(f"the pull of {reference} broke off")
        return found

    async def _inspect(self, reference: str) -> _Image | None:
        def inspect(client: Any) -> _Image | None:
            try:
                attributes = cast("dict[str, Any]", client.images.get(reference).attrs)
            except NotFound:
                return None
            digests = cast("list[str]", attributes.get("RepoDigests") or [])
            return _Image(str(attributes["Id"]), digest_of(reference, digests))

        return await self._engine.call(f"looking for image {reference}", inspect)

    async def _capabilities_of(self, reference: str, image: _Image, engine: Engine) -> Capabilities:
        if image.id not in self._capabilities:
            text = await self._engine.call(
                f"asking {reference} for its options",
                lambda client: _help(client, image.id, self._settings.node, engine),
                timeout=PROBE_TIMEOUT_S + CALL_TIMEOUT_S,
            )
            self._capabilities[image.id] = parse_help(text)
            log.info("engine_inspected", image=reference, options=len(self._capabilities[image.id].flags))
        return self._capabilities[image.id]


def digest_of(reference: str, digests: list[str]) -> str | None:
    """The digest under which the reference's own repository knows the image."""
    repository = repository_of(reference)
    return next((one.partition("@")[2] for one in digests if one.partition("@")[0] == repository), None)


def _offline_advice(reference: str) -> str:
    return (
        f"The image {reference} is not on this host, and CORTEX_OFFLINE forbids pulling it. Pull it by hand"
        f" (docker pull {reference}), or bring it as a file: docker save -o image.tar {reference} on a host that has it,"
        " docker load -i image.tar here."
    )


def _help(client: Any, image_id: str, node: str, engine: Engine) -> str:
    """What the image prints when it is asked for its options, run without network and rights."""
    _remove_leftovers(client, node)
    container = client.containers.create(
        image_id,
        list(engine.help),
        entrypoint=None if engine.lists_flags else [engine.executable],
        labels={LABEL_PROBE: node},
        environment={"HOME": "/tmp"},
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "rw,nosuid,nodev,size=64m"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        pids_limit=512,
        healthcheck={"test": ["NONE"]},
    )
    try:
        container.start()
        code = int(container.wait(timeout=PROBE_TIMEOUT_S)["StatusCode"])
        output = container.logs(tail=PROBE_LINES)
    finally:
        container.remove(force=True, v=True)
    if code != 0:
        last = bytes(output).decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise DomainError("engine_broken", f"asked for its options, the image ended with {code}: {last}", status=503)
    text = bytes(output).decode(errors="replace")
    if "--model" not in text:
        raise DomainError("engine_broken", f"the image is no {engine.executable}: it lists no --model", status=503)
    return text


def _remove_leftovers(client: Any, node: str) -> None:
    """Containers that were asked for `--help` by an orchestrator which died meanwhile."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL_PROBE}={node}"}, ignore_removed=True)
    for container in found:
        if datetime.now(UTC) - datetime.fromisoformat(container.attrs["Created"]) > PROBE_LEFTOVER_AGE:
            container.remove(force=True)
            log.info("probe_leftover_removed", container=container.name)
