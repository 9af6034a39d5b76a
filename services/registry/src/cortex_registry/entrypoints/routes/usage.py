"""Routes of usage: records, breakdowns, series."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from cortex_contracts.rights import Right
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Identity
from cortex_registry.entrypoints.access import IdentityOf, Routes
from cortex_registry.entrypoints.schemas.usage import UsageAnswer, UsageBreakdown, UsageSeries
from cortex_registry.entrypoints.schemas.usage_queries import AggregateQuery, ListQuery, SeriesQuery, decode_position
from cortex_registry.ports import UsageReports

ListOf = Annotated[ListQuery, Query()]
AggregateOf = Annotated[AggregateQuery, Query()]
SeriesOf = Annotated[SeriesQuery, Query()]


class UsageRoutes:
    """/admin/usage, and of one's own /admin/me/usage."""

    def __init__(self, usage: UsageReports, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    def router(self) -> APIRouter:
        routes = Routes("usage")
        routes.add("GET", "/usage", self.records, Right.USAGE_READ)
        routes.add("GET", "/usage/aggregate", self.aggregate, Right.USAGE_READ, response_model=UsageBreakdown)
        routes.add("GET", "/usage/series", self.series, Right.USAGE_READ, response_model=UsageSeries)
        routes.add("GET", "/me/usage", self.my_records, Right.SELF)
        routes.add("GET", "/me/usage/aggregate", self.my_aggregate, Right.SELF, response_model=UsageBreakdown)
        routes.add("GET", "/me/usage/series", self.my_series, Right.SELF, response_model=UsageSeries)
        return routes.router

    async def records(self, query: ListOf) -> UsageAnswer:
        """Records, newest first, of all time unless said otherwise."""
        return await self._records(query, None)

    async def aggregate(self, query: AggregateOf) -> Response:
        """Sums by model, key, user, organisation, engine, task, status, outcome, hour or day."""
        return await self._aggregate(query, None)

    async def series(self, query: SeriesOf) -> Response:
        """Sums by minute, hour or day of UTC, for all together or for the largest groups. Steps are whole."""
        return await self._series(query, None)

    async def my_records(self, query: ListOf, identity: IdentityOf) -> UsageAnswer:
        """Records of one's own keys."""
        return await self._records(query, user_of(identity))

    async def my_aggregate(self, query: AggregateOf, identity: IdentityOf) -> Response:
        """Sums over one's own keys."""
        return await self._aggregate(query, user_of(identity))

    async def my_series(self, query: SeriesOf, identity: IdentityOf) -> Response:
        """Sums by step over one's own keys."""
        return await self._series(query, user_of(identity))

    async def _records(self, query: ListQuery, user_id: str | None) -> UsageAnswer:
        wanted, window = query.wanted(user_id), query.any_window(self._clock.now())
        after = decode_position(query.after)
        page = await self._usage.page(wanted, window, after, query.limit)
        return UsageAnswer.of(page, await self._usage.totals(wanted, window) if after is None else None)

    async def _aggregate(self, query: AggregateQuery, user_id: str | None) -> Response:
        window = query.window(self._clock.now())
        found = await self._usage.breakdown(query.wanted(user_id), window, query.dimensions, query.bucket, query.limit)
        return _answer(UsageBreakdown.of(found, [one.value for one in query.group_by]))

    async def _series(self, query: SeriesQuery, user_id: str | None) -> Response:
        window = query.steps(self._clock.now())
        found = await self._usage.series(query.wanted(user_id), window, query.bucket, query.group_by, query.limit)
        return _answer(UsageSeries.of(found, query.bucket.value, query.group_by.value if query.group_by else None))


def _answer(body: BaseModel) -> Response:
    """Written once, not checked a second time on its way out: an answer may hold thousands of rows."""
    return Response(body.model_dump_json(), media_type="application/json")


def user_of(identity: Identity) -> str:
    """Whose own things are meant.

    Raises:
        DomainError: 403 `no_user`.
    """
    if identity.user_id is None:
        message = "The admin token of the settings belongs to no user. Sign in as one."
        raise DomainError("no_user", message, status=403)
    return identity.user_id
