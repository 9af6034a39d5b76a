"""What is known of a model's history, in Postgres."""

from collections.abc import Sequence
from datetime import timedelta

from cortex_registry.adapters.eventlog import event_from_row
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.why import Asked

_SQL = load_queries("events_why")
_SLACK = timedelta(seconds=10)
"""Clocks of several hosts may differ by this much."""


class PostgresHistory:
    """ModelHistory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revisions(self, model_id: str, *, since_version: int | None, limit: int) -> Sequence[Asked]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["revisions"], model_id, since_version, limit)
        return [
            Asked(
                version=row["version"],
                action=row["action"],
                author=row["author"],
                at=row["at"],
                request_id=row["request_id"],
                address=row["address"],
                changed=tuple(row["changed"]),
                follow_ups=row["follow_ups"],
            )
            for row in rows
        ]

    async def chain(
        self, model_id: str, asked: Asked, until: Asked | None, limit: int
    ) -> tuple[Sequence[LoggedEvent], int]:
        start, end = asked.at - _SLACK, until.at if until is not None else None
        about = (model_id, asked.request_id, start, end)
        async with self._database.connection() as connection:
            count = await connection.fetchval(_SQL["chain_count"], *about)
            if count <= limit:
                rows = await connection.fetch(_SQL["chain_first"], *about, limit)
                return [event_from_row(row) for row in rows], 0
            head = await connection.fetch(_SQL["chain_first"], *about, limit // 4)
            tail = await connection.fetch(_SQL["chain_last"], *about, limit - limit // 4)
        events = [event_from_row(row) for row in (*head, *reversed(tail))]
        return events, count - len(events)
