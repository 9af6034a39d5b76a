"""Engine images: fetched once however many replicas wait, and asked what they can do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import aiodocker
import aiohttp
from docker.errors import ContainerError, NotFound

from cortex_contracts.documents import PullProgress
from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.domain.engines.base import Engine
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import Capabilities, Program
from cortex_orchestrator.ports import OnProgress

log = get_logger()

PULL_STALL_S = 300.0
PROBE_TIMEOUT_S = 60.0


class DockerCatalog:
    """EngineCatalog over images: the model's own, or the default of its engine."""

    def __init__(self, engine: DockerEngine, defaults: Mapping[EngineType, str]) -> None:
        self._engine = engine
        self._defaults = defaults
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[str, list[OnProgress]] = {}
        self._capabilities: dict[str, Capabilities] = {}

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        """The image, pulled if it is not there."""
        reference = image or self._defaults[engine.type]
        image_id = await self._image_id(reference)
        if image_id is None:
            await self._pull(reference, on_progress)
            image_id = await self._image_id(reference)
        if image_id is None:
            raise DomainError("image_missing", f"{reference} was pulled but is not there", status=503)
        if not engine.lists_flags:
            return Program(reference, version=image_id)
        return Program(reference, await self._capabilities_of(reference, image_id), version=image_id)

    async def _image_id(self, reference: str) -> str | None:
        def inspect(client: Any) -> str | None:
            try:
                return cast(str, client.images.get(reference).id)
            except NotFound:
                return None

        return await self._engine.call(f"looking for image {reference}", inspect)

    async def _pull(self, reference: str, on_progress: OnProgress) -> None:
        """Join the pull of this image that is under way, or begin it."""
        listeners = self._listeners.setdefault(reference, [])
        listeners.append(on_progress)
        task = self._pulls.get(reference)
        if task is None:
            task = self._pulls[reference] = asyncio.create_task(self._run_pull(reference, listeners))
        try:
            await asyncio.shield(task)
        finally:
            listeners.remove(on_progress)
            if task.done():
                self._pulls.pop(reference, None)
                self._listeners.pop(reference, None)
            elif not listeners:
                task.cancel()
                self._pulls.pop(reference, None)
                self._listeners.pop(reference, None)

    async def _run_pull(self, reference: str, listeners: list[OnProgress]) -> None:
        log.info("image_pull_started", image=reference)
        try:
            async with aiodocker.Docker(url=self._engine.url) as client:
                stream = client.images.pull(reference, stream=True)
                await _follow(stream, lambda progress: _tell(listeners, reference, progress))
        except aiodocker.DockerError as error:
            raise DomainError("image_pull_failed", f"{reference} cannot be pulled: {error}", status=503) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TransientError(f"the pull of {reference} broke off: {error!r}") from error
        log.info("image_pulled", image=reference)

    async def _capabilities_of(self, reference: str, image_id: str) -> Capabilities:
        if image_id not in self._capabilities:
            text = await self._engine.call(
                f"asking {reference} for its options", lambda client: _help(client, image_id), timeout=PROBE_TIMEOUT_S
            )
            self._capabilities[image_id] = parse_help(text)
            log.info("engine_inspected", image=reference, options=len(self._capabilities[image_id].flags))
        return self._capabilities[image_id]


def _tell(listeners: list[OnProgress], reference: str, progress: PullProgress) -> None:
    for listener in tuple(listeners):
        listener(reference, progress)


async def _follow(stream: AsyncIterator[dict[str, Any]], tell: Callable[[PullProgress], None]) -> None:
    """Add up the layers; a stream that says nothing for long has stalled."""
    layers: dict[str, tuple[int, int]] = {}
    tell(PullProgress())
    while True:
        try:
            async with asyncio.timeout(PULL_STALL_S):
                line = await anext(stream)
        except StopAsyncIteration:
            return
        detail = cast("dict[str, int]", line.get("progressDetail") or {})
        if "total" in detail and line.get("status") == "Downloading":
            layers[str(line.get("id"))] = (detail.get("current", 0), detail["total"])
            current, total = (sum(column) for column in zip(*layers.values(), strict=True))
            tell(PullProgress(current_bytes=current, total_bytes=total))


def _help(client: Any, image_id: str) -> str:
    """What `--help` of the image's entrypoint prints, run without network and rights."""
    try:
        output = client.containers.run(
            image_id,
            ["--help"],
            remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            healthcheck={"test": ["NONE"]},
            stdout=True,
            stderr=True,
        )
    except ContainerError as error:
        raise DomainError("engine_broken", f"--help of the image failed: {error}", status=503) from error
    text = bytes(output).decode(errors="replace")
    if "--model" not in text:
        raise DomainError("engine_broken", "the image is no llama-server: its --help names no --model", status=503)
    return text
