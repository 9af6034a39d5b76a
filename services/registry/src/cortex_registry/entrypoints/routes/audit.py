"""Routes of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.audit import AuditAnswer, AuditExportQuery, AuditList, AuditPageQuery
from cortex_registry.handlers.audit import AuditService

_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
_TEXT = {"schema": {"type": "string"}}


class AuditRoutes:
    """/admin/audit."""

    def __init__(self, service: AuditService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("audit")
        routes.add("GET", "/audit", self.list_entries, Right.AUDIT_READ)
        exported = {"description": "Every entry.", "content": {"text/csv": _TEXT, "application/jsonl": _TEXT}}
        routes.add(
            "GET",
            "/audit/export",
            self.export,
            Right.AUDIT_READ,
            response_class=Response,
            status_code=200,
            responses={200: exported},
        )
        return routes.router

    async def list_entries(self, query: Annotated[AuditPageQuery, Query()]) -> AuditList:
        """Who did what, newest first."""
        entries = await self._service.page(query.wanted(), query.after, query.limit)
        more = len(entries) == query.limit
        return AuditList(items=[AuditAnswer.of(entry) for entry in entries], next=entries[-1].id if more else None)

    async def export(self, query: Annotated[AuditExportQuery, Query()]) -> StreamingResponse:
        """Every entry that matches, oldest first, as CSV or as a JSON object per line. An answer that breaks off is cut."""
        pieces = await self._service.export(query.wanted(), query.format)
        headers = {
            "Content-Disposition": f'attachment; filename="audit.{query.format}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return StreamingResponse(pieces, media_type=_TYPES[query.format], headers=headers)
