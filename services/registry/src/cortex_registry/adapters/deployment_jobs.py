"""Jobs of exports and restores in Postgres."""

import json
from collections.abc import Mapping
from typing import Any

import asyncpg

from cortex_contracts.rights import Role
from cortex_kit.errors import DomainError
from cortex_registry.adapters.outbox import write_audit
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.deployment import Failure, Job, JobKind, JobStatus, Progress, after_death
from cortex_registry.domain.identity import Caller, CredentialKind, Identity
from cortex_registry.domain.text import is_id
from cortex_registry.errors import DatabaseUnavailableError

_SQL = load_queries("deployment")
KEPT = 500
"""Finished jobs that are remembered."""
AUDIT_ATTEMPTS = 3
_LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class PostgresJobs:
    """JobStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job: Job) -> None:
        caller = job.caller
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    _SQL["insert_job"],
                    job.id,
                    job.kind.value,
                    job.folder,
                    json.dumps(dict(job.options)),
                    caller.actor,
                    caller.identity.user_id,
                    caller.address,
                    caller.request_id,
                    job.created_at,
                )
                await connection.execute(_SQL["forget_jobs"], KEPT)
                await write_audit(
                    connection, caller, f"deployment.{job.kind}", _subject(job), {"folder": job.folder, **job.options}
                )
        except asyncpg.UniqueViolationError as error:
            message = f"A backup named {job.folder} is being made already. Choose another name, or wait."
            raise DomainError("folder_taken", message, status=409) from error

    async def find(self, job_id: str) -> Job | None:
        if not is_id(job_id):
            return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_job"], job_id)
        return _job(row) if row is not None else None

    async def page(self, kind: JobKind | None, status: JobStatus | None, after: str | None, limit: int) -> list[Job]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_jobs"], after or _LAST, kind, status, limit)
        return [_job(row) for row in rows]

    async def active(self) -> list[Job]:
        async with self._database.connection() as connection:
            return [_job(row) for row in await connection.fetch(_SQL["active_jobs"])]

    async def latest(self) -> Mapping[JobKind, Job]:
        async with self._database.connection() as connection:
            jobs = [_job(row) for row in await connection.fetch(_SQL["latest_jobs"])]
        return {job.kind: job for job in jobs}

    async def cancel(self, job_id: str, caller: Caller) -> Job | None:
        """The flag first, by itself: a restore holds the audit log's table until it hears of it."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["cancel_job"], job_id)
        if row is None:
            return None
        job = _job(row)
        for attempt in range(AUDIT_ATTEMPTS):
            try:
                async with self._database.transaction() as connection:
                    await write_audit(connection, caller, "deployment.cancel", _subject(job), {"folder": job.folder})
                break
            except DatabaseUnavailableError:
                if attempt == AUDIT_ATTEMPTS - 1:
                    raise
        return job

    async def claim(self, instance: str, lost_after_s: float) -> Job | None:
        async with self._database.transaction() as connection:
            for row in await connection.fetch(_SQL["dead_jobs"], lost_after_s):
                await _settle(connection, after_death(_job(row)))
        try:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(_SQL["claim_job"], instance)
        except asyncpg.UniqueViolationError:
            return None  # another registry was quicker
        return _job(row) if row is not None else None

    async def beat(self, job: Job, progress: Progress) -> bool | None:
        async with self._database.connection() as connection:
            cancel: bool | None = await connection.fetchval(
                _SQL["beat"], job.id, job.attempts, progress.step[:256], progress.done, progress.total
            )
        return cancel

    async def settle(self, job: Job) -> bool:
        async with self._database.connection() as connection:
            return await _settle(connection, job)


async def settle_within(connection: Connection, job: Job) -> None:
    """Settle a job in the transaction that does its work, so that both happen or neither.

    Raises:
        DomainError: 409 `job_lost`, the job is no longer ours; roll back.
    """
    if not await _settle(connection, job):
        message = "The job was given to another registry, or cancelled, meanwhile. Nothing was changed."
        raise DomainError("job_lost", message, status=409)


async def _settle(connection: Connection, job: Job) -> bool:
    failure = job.failure
    return bool(
        await connection.fetchval(
            _SQL["settle_job"],
            job.id,
            job.attempts,
            job.status.value,
            json.dumps(dict(job.result)) if job.result is not None else None,
            failure.code[:64] if failure is not None else None,
            failure.message[:2048] if failure is not None else None,
            failure.fix[:1024] if failure is not None else None,
            job.step[:256] or None,
            job.done_bytes or None,
        )
    )


def _subject(job: Job) -> str:
    return f"deployment_job/{job.id}"


def _job(row: Row) -> Job:
    identity = Identity(
        CredentialKind.ROOT if row["user_id"] is None else CredentialKind.TOKEN,
        row["actor"],
        Role.ADMIN,
        row["user_id"],
    )
    code = row["error_code"]
    return Job(
        id=str(row["id"]),
        kind=JobKind(row["kind"]),
        folder=row["folder"],
        options=_object(row["options"]) or {},
        caller=Caller(identity, row["request_id"], row["address"]),
        created_at=row["created_at"],
        status=JobStatus(row["status"]),
        step=row["step"],
        done_bytes=row["done_bytes"],
        total_bytes=row["total_bytes"],
        result=_object(row["result"]),
        failure=Failure(code, row["error"] or "", row["fix"] or "") if code is not None else None,
        cancel_requested=row["cancel_requested"],
        attempts=row["attempts"],
        instance=row["instance"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _object(text: str | None) -> dict[str, Any] | None:
    return json.loads(text) if text is not None else None
