"""Queries on the audit log."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

from cortex_registry.domain.audit import AuditEntry, AuditFilter, csv_header, to_csv, to_jsonl

EXPORT_PAGE = 1000
ExportFormat = Literal["csv", "jsonl"]


class AuditLog(Protocol):
    """The table. Every method raises DatabaseUnavailableError when Postgres does not answer."""

    async def page(self, wanted: AuditFilter, after: int | None, limit: int) -> Sequence[AuditEntry]:
        """Newest first, behind the id given."""
        ...

    async def last(self) -> int:
        """The newest id."""
        ...

    async def slice(self, wanted: AuditFilter, after: int, until: int, limit: int) -> Sequence[AuditEntry]:
        """Oldest first, above one id up to another."""
        ...


class AuditService:
    """What happened, by whom."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    async def page(self, wanted: AuditFilter, after: int | None, limit: int) -> Sequence[AuditEntry]:
        """Newest first, behind the id given."""
        return await self._audit.page(wanted, after, limit)

    async def export(self, wanted: AuditFilter, kind: ExportFormat) -> AsyncGenerator[str]:
        """Everything there is now, oldest first, in pieces; holds no connection between them.

        Raises:
            DatabaseUnavailableError: before the first piece, so that it can be answered; or later, which ends the answer.
        """
        until = await self._audit.last()
        first = await self._audit.slice(wanted, 0, until, EXPORT_PAGE)
        return self._pieces(wanted, kind, until, first)

    async def _pieces(
        self, wanted: AuditFilter, kind: ExportFormat, until: int, entries: Sequence[AuditEntry]
    ) -> AsyncGenerator[str]:
        if kind == "csv":
            yield csv_header()
        while entries:
            yield to_csv(entries) if kind == "csv" else to_jsonl(entries)
            if len(entries) < EXPORT_PAGE:
                return
            entries = await self._audit.slice(wanted, entries[-1].id, until, EXPORT_PAGE)
