"""Routes of backups; what they ask for is done by jobs."""

from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.rights import Right
from cortex_registry.domain.deployment import FOLDER, JobKind, JobStatus
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.schemas.deployment import (
    BackupAnswer,
    BackupList,
    EstimateBody,
    ExportBody,
    JobAnswer,
    JobList,
    ModelManifestAnswer,
    ModelManifestList,
    OptionsAnswer,
    RestoreBody,
    SizesAnswer,
    StatusAnswer,
)
from cortex_registry.handlers.deployment import Deployment

OfFolder = Annotated[
    str | None, Query(pattern=FOLDER, max_length=100, description="Only this backup.", examples=["nightly-2026-11-22"])
]


class DeploymentRoutes:
    """/admin/deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def router(self) -> APIRouter:
        routes = Routes("deployment")
        read, write = Right.BACKUPS_READ, Right.BACKUPS_WRITE
        routes.add("GET", "/deployment/options", self.options, read)
        routes.add("GET", "/deployment/status", self.status, read)
        routes.add("GET", "/deployment/jobs", self.jobs, read)
        routes.add("GET", "/deployment/jobs/{job_id}", self.job, read)
        routes.add("DELETE", "/deployment/jobs/{job_id}", self.cancel, write, status_code=202)
        routes.add("GET", "/deployment/database-dump", self.dumps, read)
        routes.add("GET", "/deployment/model-manifests", self.models, read, response_model_exclude_none=True)
        routes.add("POST", "/deployment/estimate-size", self.estimate, read)
        routes.add("POST", "/deployment/export", self.export, write, status_code=202)
        routes.add("POST", "/deployment/restore-database", self.restore, write, status_code=202)
        return routes.router

    async def options(self) -> OptionsAnswer:
        """What can be backed up here, and where to."""
        return OptionsAnswer.of(await self._deployment.options())

    async def status(self) -> StatusAnswer:
        """What runs, what ran last, what lies there."""
        return StatusAnswer.of(await self._deployment.status())

    async def jobs(
        self,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JobList:
        """Exports and restores, the newest first; the last five hundred are remembered."""
        found = await self._deployment.jobs(kind, status, after or None, limit + 1)
        items = [JobAnswer.of(job) for job in found[:limit]]
        return JobList(items=items, next=items[-1].id if len(found) > limit else None)

    async def job(self, job_id: str) -> JobAnswer:
        """One job: how far it is, how it ended, and what to do when it failed."""
        return JobAnswer.of(await self._deployment.job(job_id))

    async def cancel(self, job_id: str, caller: CallerOf) -> JobAnswer:
        """End a job. One that runs ends a moment later and leaves nothing; a restore is rolled back."""
        return JobAnswer.of(await self._deployment.cancel(job_id, caller))

    async def dumps(self, folder: OfFolder = None) -> BackupList:
        """Backups, and whether their databases can be restored now."""
        return BackupList(items=[BackupAnswer.of(one) for one in await self._deployment.dumps(folder)])

    async def models(self, folder: OfFolder = None) -> ModelManifestList:
        """Backups that hold models; with `folder` the models themselves, in the form that an import takes."""
        return ModelManifestList(items=[ModelManifestAnswer.of(one) for one in await self._deployment.models(folder)])

    async def estimate(self, body: EstimateBody) -> SizesAnswer:
        """About how large a backup would become, and whether it fits. Nothing is written."""
        return SizesAnswer.of(await self._deployment.estimate(body.options()))

    async def export(self, body: ExportBody, caller: CallerOf) -> JobAnswer:
        """Make a backup; the answer is the job that makes it."""
        return JobAnswer.of(await self._deployment.export(body.folder, body.options(), caller))

    async def restore(self, body: RestoreBody, caller: CallerOf) -> JobAnswer:
        """Replace the whole database by a backup's, in one transaction, while no model of Cortex's own is asked to run.

        Everybody has to sign in again, as users of the backup. Requests to this API wait while it is done.
        """
        return JobAnswer.of(await self._deployment.restore(body.folder, body.confirm, body.options(), caller))
