"""Which engine images this node has."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from cortex_contracts.base import NodeId
from cortex_contracts.enums import EngineType
from cortex_contracts.images import ImagesResultV1
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.domain.images import LocalImage, engine_images

DEADLINE_S = 8.0
NO_DOCKER = "this node runs engines as processes of programs that are installed: it has no images"


class ImageList(Protocol):
    """The images of a container engine."""

    async def local(self) -> Sequence[LocalImage]:
        """Raises TransientError or DomainError when the engine cannot be asked."""
        ...


class Images:
    """Looks and changes nothing. `images` is None with the process runtime."""

    def __init__(self, node: NodeId, images: ImageList | None, defaults: Mapping[EngineType, str]) -> None:
        self._node = node
        self._images = images
        self._defaults = defaults

    async def list(self, references: Sequence[str]) -> ImagesResultV1:
        """Those of engines; an engine host that does not answer is a reason, not an error."""
        if self._images is None:
            return ImagesResultV1(node=self._node, reason=NO_DOCKER)
        try:
            async with asyncio.timeout(DEADLINE_S):
                local = await self._images.local()
        except (TransientError, DomainError, TimeoutError) as error:
            return ImagesResultV1(node=self._node, reason=f"the Docker engine does not answer: {error or 'in time'}")
        return ImagesResultV1(node=self._node, images=engine_images(local, self._defaults, references))
