"""Takes jobs, carries them out, says how far they are, ends them when they are cancelled. One at a time, on one registry."""

import asyncio
import contextlib
from dataclasses import dataclass, replace

from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger
from cortex_registry.domain.deployment import MAX_ATTEMPTS, Failure, Job, JobKind, JobStatus, Progress
from cortex_registry.errors import DatabaseUnavailableError, UnavailableError
from cortex_registry.handlers.deployment_ports import JobStore, WorkOfJobs

log = get_logger()
SETTLE_S = 3.0
"""Longest time for a last word when the service stops."""
_FIXES = {
    "export_dir_failed": "Look at the disk behind CORTEX_EXPORT_DIR: free room, and whether the registry may write there.",
    "not_enough_space": "Free room there, or leave a part out: `cortex backup create --without-usage`.",
    "database_unavailable": "Look at `cortex doctor`, then start it again. A table in use for long does this, too.",
    "damaged_backup": "Take another backup: `cortex backup list`.",
    "models_running": "Stop them: `cortex model stop NAME`.",
    "folder_taken": "Choose another name.",
    "timeout": "Give it more time: CORTEX_REGISTRY_BACKUP_TIMEOUT_S.",
}


@dataclass(frozen=True, slots=True)
class RunnerTiming:
    """`poll_s`: between two looks for work, and two signs of life. `limit_s`: for one job."""

    poll_s: float
    lost_after_s: float
    limit_s: float


class JobRunner:
    """A task of the service."""

    def __init__(self, jobs: JobStore, work: WorkOfJobs, instance: str, timing: RunnerTiming) -> None:
        self._jobs = jobs
        self._work = work
        self._instance = instance
        self._timing = timing
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """There may be a new job."""
        self._hint.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                job = await self._jobs.claim(self._instance, self._timing.lost_after_s)
            except DatabaseUnavailableError as error:
                log.debug("jobs_wait", reason=error.message)
                job = None
            if job is not None:
                await self._carry_out(job)
                continue
            try:
                async with asyncio.timeout(self._timing.poll_s):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()

    async def _carry_out(self, job: Job) -> None:
        log.info("job_started", job=job.id, kind=job.kind, folder=job.folder, attempt=job.attempts)
        progress = Progress()
        work = asyncio.create_task(self._limited(job, progress), name=f"deployment-{job.kind}")
        try:
            cancelled = await self._watched(job, progress, work)
        except asyncio.CancelledError:
            leaving = asyncio.create_task(self._leave(work, job), name="deployment-leaving")
            while not leaving.done():  # short, and not to be broken off by whoever cancels more than once
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([leaving])
            raise
        if cancelled is None:
            log.warning("job_lost", job=job.id)  # somebody else has it, or has settled it
            return
        ending = replace(_ending(job, work, cancelled=cancelled), step=progress.step, done_bytes=progress.done)
        await self._settled(ending)

    async def _limited(self, job: Job, progress: Progress) -> Job:
        try:
            async with asyncio.timeout(self._timing.limit_s):
                result = await self._work.carry_out(job, progress)
        except TimeoutError as error:
            message = f"It took longer than {self._timing.limit_s:g} s. Nothing was left half done."
            raise DomainError("timeout", message, status=503) from error
        return replace(job, status=JobStatus.SUCCEEDED, result=result)

    async def _watched(self, job: Job, progress: Progress, work: "asyncio.Task[Job]") -> bool | None:
        """Until the work is over; returns whether it was cancelled, None when the job is no longer ours."""
        while True:
            await asyncio.wait([work], timeout=self._timing.poll_s)
            if work.done():
                return False
            try:
                cancel = await self._jobs.beat(job, progress)
            except DatabaseUnavailableError as error:
                log.debug("job_silent", job=job.id, reason=error.message)
                continue
            if cancel is None:
                await asyncio.wait([work], timeout=SETTLE_S)  # a restore settles its job itself, just before it ends
                if work.done():
                    return False
            if cancel is not False:
                await _ended(work)
                return cancel

    async def _settled(self, ending: Job) -> None:
        """Until it is told; the database may be away for a while."""
        reason = ending.failure.message if ending.failure is not None else None
        log.info("job_ended", job=ending.id, status=ending.status, reason=reason)
        for _ in range(max(1, round(self._timing.lost_after_s / self._timing.poll_s))):
            try:
                await self._jobs.settle(ending)
                return
            except DatabaseUnavailableError:
                await asyncio.sleep(self._timing.poll_s)
        log.warning("job_end_not_told", job=ending.id)

    async def _leave(self, work: "asyncio.Task[Job]", job: Job) -> None:
        await _ended(work)
        await self._put_back(job)

    async def _put_back(self, job: Job) -> None:
        """The service stops: another registry, or this one after its start, begins an export anew."""
        again = job.kind is JobKind.EXPORT and job.attempts < MAX_ATTEMPTS
        message = "The registry was stopped meanwhile. Nothing was left half done."
        failure = None if again else Failure("registry_stopped", message, "Start it again.")
        status = JobStatus.QUEUED if again else JobStatus.FAILED
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._jobs.settle(replace(job, status=status, failure=failure))
        except (DatabaseUnavailableError, TimeoutError):
            log.warning("job_not_put_back", job=job.id)


async def _ended(work: "asyncio.Task[Job]") -> None:
    """Cancel, as often as it takes: drivers may swallow one cancellation."""
    while not work.done():
        work.cancel()
        await asyncio.wait([work], timeout=1.0)


def _ending(job: Job, work: "asyncio.Task[Job]", *, cancelled: bool) -> Job:
    if not work.cancelled() and work.exception() is None:
        return work.result()  # it was over before it could be cancelled
    if cancelled or work.cancelled():
        return replace(job, status=JobStatus.CANCELLED)
    error = work.exception()
    match error:
        case DomainError() | UnavailableError():
            failure = Failure(error.code, error.message, _FIXES.get(error.code, "Put that right and start it again."))
        case _:
            log.error("job_crashed", job=job.id, exc_info=error)
            failure = Failure("internal_error", "The registry failed; its log holds the reason.", "Look there.")
    return replace(job, status=JobStatus.FAILED, failure=failure)
