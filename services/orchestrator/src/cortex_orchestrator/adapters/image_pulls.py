"""Image pulls: one an image however many wait for it, with progress, a deadline and refusals in our words."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from cortex_contracts.documents import PullProgress
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import pull_refused, repository_of
from cortex_orchestrator.adapters.docker_streams import Refused, json_lines
from cortex_orchestrator.ports import OnProgress

log = get_logger()

STALL_S = 300.0
PROGRESS_S = 1.0
DOWNLOADED = ("Download complete", "Verifying Checksum", "Extracting", "Pull complete")


@dataclass(slots=True)
class _Pull:
    """One pull under way and who waits for it."""

    listeners: list[OnProgress] = field(default_factory=list[OnProgress])
    task: "asyncio.Task[None] | None" = None
    last: PullProgress = field(default_factory=PullProgress)


class ImagePulls:
    """`deadline_s` bounds a whole pull. Layers that have arrived are kept by Docker: the next pull goes on from there."""

    def __init__(self, engine: DockerEngine, *, deadline_s: float) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._pulls: dict[str, _Pull] = {}

    async def pull(self, reference: str, on_progress: OnProgress) -> None:
        """Join the pull of this image that is under way, or begin it. Ends with it when the last who waits has left.

        Raises:
            DomainError: `image_not_found`, `registry_unreachable`, `registry_denied`, `registry_limit`, `disk_full`,
                `image_pull_timeout`, `image_wrong_platform`, `image_pull_failed`.
            TransientError: the Docker engine went away meanwhile.
        """
        pull = self._pulls.setdefault(reference, _Pull())
        pull.listeners.append(on_progress)
        if pull.task is None:
            pull.task = asyncio.create_task(self._run(reference, pull), name=f"pull {reference}")
        else:
            on_progress(reference, pull.last)
        task = pull.task
        try:
            await asyncio.shield(task)
        finally:
            pull.listeners.remove(on_progress)
            if not pull.listeners or task.done():
                self._pulls.pop(reference, None)
            if not pull.listeners and not task.done():
                log.info("image_pull_abandoned", image=reference)
                task.cancel()

    async def _run(self, reference: str, pull: _Pull) -> None:
        def tell(progress: PullProgress) -> None:
            pull.last = progress
            for listener in tuple(pull.listeners):
                listener(reference, progress)

        log.info("image_pull_started", image=reference)
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._engine.streams.open("POST", "images/create", {"fromImage": reference, **_tag(reference)}) as body,
            ):
                await follow_progress(json_lines(body), tell)
        except (Refused, PullError) as error:
            raise pull_refused(reference, str(error)) from error
        except TimeoutError as error:
            text = f"{reference} was not pulled within {self._deadline_s:g} s; what has arrived is kept."
            advice = "Raise CORTEX_ORCHESTRATOR_PULL_TIMEOUT_S on a slow line."
            raise DomainError("image_pull_timeout", f"{text} {advice}", status=503) from error
        except (ValueError, TransientError) as error:
            raise TransientError(f"the pull of {reference} broke off: {error}") from error
        log.info("image_pulled", image=reference)


class PullError(Exception):
    """The engine gave up in the middle of a pull; its words."""


def _tag(reference: str) -> dict[str, str]:
    """Without a tag the engine would pull all of them."""
    return {} if reference != repository_of(reference) else {"tag": "latest"}


async def follow_progress(stream: AsyncIterator[dict[str, Any]], tell: Callable[[PullProgress], None]) -> None:
    """Add up the layers, tell once a second; a stream that says nothing for long has stalled.

    Raises:
        PullError: the engine gave up.
        TransientError: it has stalled.
    """
    layers: dict[str, tuple[int, int]] = {}
    told_at = float("-inf")
    told = PullProgress()
    tell(told)
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                line = await anext(stream)
        except StopAsyncIteration:
            break
        except TimeoutError as error:
            raise TransientError(f"the pull has said nothing for {STALL_S:g} s") from error
        if "error" in line:
            raise PullError(str(line["error"]))
        _count(layers, line)
        now = asyncio.get_running_loop().time()
        if now - told_at >= PROGRESS_S and layers and _sum(layers) != told:
            told_at, told = now, _sum(layers)
            tell(told)
    if layers and _sum(layers) != told:
        tell(_sum(layers))


def _count(layers: dict[str, tuple[int, int]], line: dict[str, Any]) -> None:
    layer, status = str(line.get("id")), str(line.get("status"))
    detail = cast("dict[str, int]", line.get("progressDetail") or {})
    if status == "Downloading" and "total" in detail:
        layers[layer] = (detail.get("current", 0), detail["total"])
    elif status in DOWNLOADED and layer in layers:
        total = layers[layer][1]
        layers[layer] = (total, total)


def _sum(layers: dict[str, tuple[int, int]]) -> PullProgress:
    current, total = (sum(column) for column in zip(*layers.values(), strict=True))
    return PullProgress(current_bytes=current, total_bytes=total)
