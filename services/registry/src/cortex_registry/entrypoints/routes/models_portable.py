"""Routes of models in files."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_registry.domain.portable import Conflict, PortableFile
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.routes.models import ONE
from cortex_registry.entrypoints.schemas.portable import ImportAnswer
from cortex_registry.handlers.portable import ImportOptions, PortableService


@dataclass(frozen=True, slots=True)
class _Options:
    """Query parameters of an import."""

    conflict: Annotated[Conflict, Query(description="What to do with a model whose name is taken.")] = Conflict.ERROR
    dry_run: Annotated[bool, Query(description="Say what would become of each model, and do nothing.")] = False
    partial: Annotated[bool, Query(description="Import what can be; else one failure stops all.")] = False
    start: Annotated[bool, Query(description="Start what ran where the file was made.")] = False

    def options(self) -> ImportOptions:
        return ImportOptions(self.conflict, self.dry_run, self.partial, self.start)


Options = Annotated[_Options, Depends()]


class PortableRoutes:
    """/admin/models/{ref}/export, /admin/models-export, /admin/models-import, and the names they had."""

    def __init__(self, service: PortableService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("models")
        read, write = Right.MODELS_READ, Right.MODELS_WRITE
        routes.add("GET", f"{ONE}/export", self.export_one, read, response_model_exclude_none=True)
        routes.add("GET", "/models-export", self.export_all, read, response_model_exclude_none=True)
        routes.add("POST", "/models-import", self.import_all, write)
        routes.add(
            "POST", "/deployment/export-model/{reference:path}", self.export_old, read, response_model_exclude_none=True
        )
        routes.add("POST", "/deployment/import-model", self.import_old, write)
        return routes.router

    async def export_one(self, reference: str) -> PortableFile:
        """One model as a file that another installation takes. Secrets are left out and named."""
        return await self._service.export_one(reference)

    async def export_all(self) -> PortableFile:
        """Every model as one file, archived ones too. Secrets are left out and named."""
        file = await self._service.export_all()
        if file is None:
            raise DomainError("nothing_to_export", "There is no model yet.", status=404)
        return file

    async def import_all(self, file: PortableFile, options: Options, caller: CallerOf) -> ImportAnswer:
        """Bring the models of a file in: all or none, unless `partial`. They do not start, unless `start`."""
        wanted = options.options()
        result = await self._service.import_all(file, wanted, caller)
        answer = ImportAnswer.of(result, dry_run=wanted.dry_run)
        if not result.applied and not wanted.dry_run:
            failed = [item.served_model_name or item.name for item in answer.items if item.outcome == "failed"]
            message = f"Nothing was imported: {', '.join(failed[:5])} cannot be. See items."
            items = [item.model_dump(mode="json") for item in answer.items]
            raise DomainError("import_failed", message, status=422, details={"items": items})
        return answer

    async def export_old(self, reference: str) -> PortableFile:
        """Old name of GET /admin/models/{ref}/export."""
        return await self._service.export_one(reference)

    async def import_old(self, file: PortableFile, options: Options, caller: CallerOf) -> ImportAnswer:
        """Old name of POST /admin/models-import."""
        return await self.import_all(file, options, caller)
