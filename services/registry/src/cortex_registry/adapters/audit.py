"""The audit log in Postgres."""

import json
from collections.abc import Sequence

from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.audit import AuditEntry, AuditFilter, like

_SQL = load_queries("audit")
_BEYOND_ANY = 2**63 - 1


class PostgresAudit:
    """AuditLog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: AuditFilter, after: int | None, limit: int) -> Sequence[AuditEntry]:
        start = after if after is not None else _BEYOND_ANY
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_audit"], start, *_filters(wanted), limit)
        return [_entry(row) for row in rows]

    async def last(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_SQL["last_audit"]))

    async def slice(self, wanted: AuditFilter, after: int, until: int, limit: int) -> Sequence[AuditEntry]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["export_audit"], after, *_filters(wanted), limit, until)
        return [_entry(row) for row in rows]


def _filters(wanted: AuditFilter) -> tuple[object, ...]:
    return (
        wanted.actor,
        like(wanted.action),
        like(wanted.subject),
        wanted.request_id,
        wanted.since,
        wanted.until,
    )


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        request_id=row["request_id"],
        user_id=row["user_id"],
        address=row["address"],
        detail=json.loads(row["detail"]),
    )
