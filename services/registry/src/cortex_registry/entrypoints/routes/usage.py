"""Routes of usage."""

from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.base import UtcDatetime
from cortex_registry.domain.identity import Right
from cortex_registry.domain.usage import UsageFilter
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.usage import UsageAnswer
from cortex_registry.ports import UsageRepository


class UsageRoutes:
    """/admin/usage."""

    def __init__(self, usage: UsageRepository) -> None:
        self._usage = usage

    def router(self) -> APIRouter:
        routes = Routes("usage")
        routes.add("GET", "/usage", self.report, Right.USAGE_READ)
        return routes.router

    async def report(
        self,
        model: Annotated[str | None, Query(max_length=256)] = None,
        key_id: Annotated[str | None, Query(max_length=64)] = None,
        since: UtcDatetime | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> UsageAnswer:
        """The newest records and sums. `model` is the name clients asked for, or a model's id."""
        wanted = UsageFilter(model=model, key_id=key_id, since=since, limit=limit)
        return UsageAnswer.of(await self._usage.report(wanted))
