"""Routes of usage: percentiles."""

from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_kit.clock import Clock
from cortex_registry.domain.usage import Measure
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.usage import UsageLatencies
from cortex_registry.entrypoints.schemas.usage_queries import LatencyQuery
from cortex_registry.ports import UsageReports

LatencyOf = Annotated[LatencyQuery, Query()]


class UsageLatencyRoutes:
    """/admin/usage/latency and /admin/usage/ttft."""

    def __init__(self, usage: UsageReports, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    def router(self) -> APIRouter:
        routes = Routes("usage")
        routes.add("GET", "/usage/latency", self.latency, Right.USAGE_READ)
        routes.add("GET", "/usage/ttft", self.ttft, Right.USAGE_READ)
        return routes.router

    async def latency(self, query: LatencyOf) -> UsageLatencies:
        """How long completed requests took: p50, p90, p95, p99, mean and count."""
        return await self._answer(query, Measure.DURATION)

    async def ttft(self, query: LatencyOf) -> UsageLatencies:
        """How long completed requests took to their first token, where that was measured."""
        return await self._answer(query, Measure.TTFT)

    async def _answer(self, query: LatencyQuery, measure: Measure) -> UsageLatencies:
        window = query.window(self._clock.now())
        found = await self._usage.distributions(query.wanted(), window, query.group_by, measure, query.limit)
        return UsageLatencies.of(found, query.group_by.value if query.group_by else None)
