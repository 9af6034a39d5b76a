"""Asks orchestrators for engine images."""

from collections.abc import Sequence

from cortex_contracts import subjects
from cortex_contracts.base import NodeId
from cortex_contracts.images import ImagesRequestV1, ImagesResultV1
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_registry.errors import UnavailableError

TIMEOUT_S = 10.0


class NatsImages:
    """ImageLister over request-reply."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def images(self, node: NodeId, references: Sequence[str]) -> ImagesResultV1:
        request = ImagesRequestV1(references=tuple(references))
        try:
            return await self._bus.request(subjects.rpc_images(node), request, ImagesResultV1, timeout=TIMEOUT_S)
        except TransientError as error:
            message = f"The orchestrator of node {node} does not answer. Try again in a moment."
            raise UnavailableError("orchestrator_unavailable", message) from error
