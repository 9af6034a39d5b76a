"""Looks at this node for the doctor: the Docker engine, the disks, the memory, the models folder."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psutil
from docker.errors import NotFound

from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.domain.doctor import MODEL_SUFFIXES, Disk, DockerFacts

ENTRIES_LOOKED_AT = 20_000
"""A huge models folder is counted no further."""


class DockerHost:
    """The port `DockerExaminer`."""

    def __init__(self, engine: DockerEngine, images: Sequence[str]) -> None:
        self._engine = engine
        self._images = tuple(images)

    async def examine(self) -> DockerFacts:
        version = await self._engine.call("asking the Docker engine for its version", lambda client: client.version())
        info = await self._engine.call("asking the Docker engine about itself", lambda client: client.info())
        images = {image: await self._has(image) for image in self._images}
        runtimes = cast("dict[str, Any]", info.get("Runtimes") or {})
        return DockerFacts(str(version.get("Version", "unknown")), tuple(runtimes), images)

    async def _has(self, image: str) -> bool:
        try:
            await self._engine.call(f"looking for {image}", lambda client: client.api.inspect_image(image))
        except NotFound:
            return False
        return True


def measure_disks(folders: Sequence[tuple[str, Path]]) -> tuple[Disk, ...]:
    """The file systems below (purpose, folder); what does not exist is measured at its nearest parent. Blocking."""
    found: list[Disk] = []
    for purpose, folder in folders:
        there = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
        usage = shutil.disk_usage(there)
        found.append(Disk(purpose, str(folder), usage.free, usage.total))
    return tuple(found)


def measure_memory() -> tuple[int, int]:
    """Available and total host memory. Blocking, quick."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def count_models(root: Path) -> int | None:
    """Model files below the folder, as far as `ENTRIES_LOOKED_AT` reaches; None when it cannot be read. Blocking."""
    if not os.access(root, os.R_OK | os.X_OK):
        return None
    seen = models = 0
    for _, _, files in os.walk(root):
        models += sum(name.lower().endswith(MODEL_SUFFIXES) for name in files)
        seen += len(files) + 1
        if seen > ENTRIES_LOOKED_AT:
            break
    return models
