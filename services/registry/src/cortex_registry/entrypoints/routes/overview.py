"""Routes of the whole at a glance; nothing here writes."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.overview import (
    GpuAnswer,
    GpuList,
    HostAnswer,
    HostList,
    SummaryAnswer,
    ThroughputAnswer,
)
from cortex_registry.handlers.overview import Overview


class OverviewRoutes:
    """/admin/system."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def router(self) -> APIRouter:
        routes = Routes("system")
        routes.add("GET", "/system/summary", self.summary, Right.SYSTEM_READ)
        routes.add("GET", "/system/throughput", self.throughput, Right.USAGE_READ)
        routes.add("GET", "/system/gpus", self.gpus, Right.SYSTEM_READ)
        routes.add("GET", "/system/host/summary", self.hosts, Right.SYSTEM_READ)
        return routes.router

    async def summary(self) -> SummaryAnswer:
        """Models by state, endpoints by verdict, load and resources."""
        return SummaryAnswer.of(await self._overview.summary())

    async def throughput(
        self, window_s: Annotated[int, Query(ge=10, le=3600, description="how far back, seconds")] = 300
    ) -> ThroughputAnswer:
        """Requests and tokens of the last minutes, all together and by model."""
        since, rows = await self._overview.throughput(timedelta(seconds=window_s))
        return ThroughputAnswer.of(since, window_s, rows)

    async def gpus(self) -> GpuList:
        """Every GPU, what is promised of it, and who runs there."""
        return GpuList(items=[GpuAnswer.of(gpu) for gpu in self._overview.gpus()])

    async def hosts(self) -> HostList:
        """Every host, as its orchestrator reports it."""
        return HostList(items=[HostAnswer.of(host) for host in self._overview.hosts()])
