"""Routes about what the installation can do, its engine images, and its hosts' last hour; nothing here writes."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.installation import (
    HostImages,
    ImageList,
    SystemCapabilitiesAnswer,
    TrendsAnswer,
)
from cortex_registry.handlers.installation import HostTrends, Installation


class InstallationRoutes:
    """/admin/system/{capabilities,docker-images,host/trends}."""

    def __init__(self, installation: Installation, trends: HostTrends, engines: tuple[str, ...]) -> None:
        self._installation = installation
        self._trends = trends
        self._engines = engines

    def router(self) -> APIRouter:
        routes = Routes("system")
        routes.add("GET", "/system/capabilities", self.capabilities, Right.SYSTEM_READ)
        routes.add("GET", "/system/docker-images", self.images, Right.SYSTEM_READ)
        routes.add("GET", "/system/host/trends", self.trends, Right.SYSTEM_READ)
        return routes.router

    async def capabilities(self) -> SystemCapabilitiesAnswer:
        """Hosts, engines, and what is possible here; what is not, with the reason."""
        installation = self._installation
        return SystemCapabilitiesAnswer.of(
            version("cortex-registry"), self._engines, installation.nodes, installation.features()
        )

    async def images(self) -> ImageList:
        """Engine images by host, asked of each orchestrator now."""
        return ImageList(items=[HostImages.of(one) for one in await self._installation.images()])

    async def trends(
        self, minutes: Annotated[int, Query(ge=1, le=24 * 60, description="how far back; no farther than is kept")] = 15
    ) -> TrendsAnswer:
        """Processor, memory and GPUs of every host, lately."""
        since, trends = self._trends.last(minutes)
        return TrendsAnswer.of(since, self._trends.rules.step_s, trends)
