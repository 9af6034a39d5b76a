"""Merges in the background of the service: one at a time, announced, joined by whoever asks again."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from cortex_contracts.events import Event, GgufMergedV1, GgufMergingV1, GgufRejectedV1
from cortex_contracts.library import MergeRequestV1, MergeState
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.merge.files import MergeFiles
from cortex_gguf_inspector.merge.job import Merged, MergeOptions, merge_prepared
from cortex_gguf_inspector.merge.prepare import Prepared, prepare, target_of
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_kit.logging import get_logger

log = get_logger()
PROGRESS_S = 1.0
PREPARE_S = 60.0
STOP_S = 20.0
QUEUED_MAX = 100


class Announcer(Protocol):
    """Whoever listens to `gguf.merging` and `gguf.merged`."""

    async def try_publish(self, event: Event, *, aggregate_id: str) -> bool:
        """Best effort; never raises for an absent broker."""
        ...


@dataclass
class Job:
    """One merge; changed by its worker only."""

    id: str
    target: PurePosixPath
    prepared: Prepared
    state: MergeState = MergeState.QUEUED
    done: int = 0
    error: GgufError | None = None

    @property
    def total(self) -> int:
        return self.prepared.plan.size


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """`cache`: folder below the root that merged files go to, by content identity; None: beside their parts."""

    cache: PurePosixPath | None = None
    limits: Limits = field(default_factory=Limits)
    check: bool = True


class MergeJobs:
    """The merges of one instance. Another instance at work on the same file shows as running, by the lock on the file."""

    def __init__(self, root: Path | None, settings: MergeSettings, announcer: Announcer) -> None:
        self._models = None if root is None else ModelsRoot(root)
        self._settings = settings
        self._announcer = announcer
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._stop = threading.Event()
        self._planner = ThreadPoolExecutor(max_workers=2, thread_name_prefix="merge-plan")
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merge")

    async def request(self, request: MergeRequestV1) -> Job:
        """Start a merge, join the one under way, or find the finished file. A failure is told once, then tried anew.

        Raises:
            GgufError: there is nothing to merge, or the target cannot be written.
        """
        job = await self._in_thread(self._plan, request)
        running = self._jobs.get(job.id)
        if running is not None:
            if running.state is MergeState.FAILED:
                del self._jobs[job.id]
            return running
        if job.state is MergeState.QUEUED:
            if self._queue.qsize() >= QUEUED_MAX:
                raise GgufError(GgufErrorCode.MERGE_RUNNING, f"{QUEUED_MAX} merges are waiting already: ask later")
            self._jobs[job.id] = job
            self._queue.put_nowait(job)
        return job

    async def run(self) -> None:
        """Task: work through the queue until cancelled; a merge under way then stops so that it can go on later."""
        try:
            while True:
                await self._execute(await self._queue.get())
        finally:
            self.stop()

    def stop(self) -> None:
        """End everything at the next chunk."""
        self._stop.set()
        self._planner.shutdown(wait=False, cancel_futures=True)
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, plan: Callable[[MergeRequestV1], Job], request: MergeRequestV1) -> Job:
        try:
            async with asyncio.timeout(PREPARE_S):
                return await asyncio.get_running_loop().run_in_executor(self._planner, plan, request)
        except TimeoutError as error:
            message = f"the models directory did not answer within {PREPARE_S:g} s"
            raise GgufError(GgufErrorCode.TIMEOUT, message) from error

    def _plan(self, request: MergeRequestV1) -> Job:
        if self._models is None:
            raise GgufError(
                GgufErrorCode.MODELS_DIR_UNAVAILABLE, "no models directory is configured (CORTEX_MODELS_DIR)"
            )
        prepared = prepare(self._models, request.path, self._settings.limits)
        target = target_of(self._models, prepared, request.output, self._settings.cache)
        job_id = hashlib.sha256(f"{prepared.plan.digest} {target}".encode()).hexdigest()[:32]
        job = Job(job_id, target, prepared)
        with self._models.open_folder(target.parent) as folder:
            files = MergeFiles(folder, target.name)
            if files.exists():
                merge_prepared(self._models, prepared, target, self._settings.limits, MergeOptions())
                job.state, job.done = MergeState.DONE, job.total
            elif files.is_running():
                journal = files.journal()
                job.state, job.done = MergeState.RUNNING, journal.done if journal else 0
        return job

    async def _execute(self, job: Job) -> None:
        job.state = MergeState.RUNNING
        log.info(
            "gguf_merge_started", job=job.id, target=str(job.target), parts=job.prepared.plan.parts, size=job.total
        )
        future = asyncio.get_running_loop().run_in_executor(self._worker, self._merge, job)
        try:
            told = -1
            while not future.done():
                if job.done != told:
                    told = job.done
                    await self._tell(job, GgufMergingV1(path=str(job.target), done_bytes=told, total_bytes=job.total))
                await asyncio.wait({future}, timeout=PROGRESS_S)
        finally:
            if not future.done():
                self._stop.set()
                await asyncio.wait({future}, timeout=STOP_S)
        await self._finish(job, future)

    def _merge(self, job: Job) -> Merged:
        assert self._models is not None

        def progress(phase: str, done: int, total: int) -> None:
            if self._settings.check:  # half of the way is the copy, half the check
                done = done // 2 if phase == "copy" else (total + done) // 2
            job.done = done

        options = MergeOptions(progress=progress, stop=self._stop.is_set, check=self._settings.check)
        return merge_prepared(self._models, job.prepared, job.target, self._settings.limits, options)

    async def _finish(self, job: Job, future: asyncio.Future[Merged]) -> None:
        try:
            merged = future.result()
        except GgufError as error:
            if error.reason in (GgufErrorCode.MERGE_RUNNING, GgufErrorCode.MERGE_STOPPED):
                self._jobs.pop(job.id, None)  # another instance is at it, or the service stops: no failure of the merge
                log.info("gguf_merge_left", job=job.id, target=str(job.target), code=error.code)
                return
            job.state, job.error = MergeState.FAILED, error
            log.warning("gguf_merge_failed", job=job.id, target=str(job.target), code=error.code, reason=error.message)
            await self._tell(job, GgufRejectedV1(path=str(job.target), code=error.code, reason=error.message))
            return
        job.state, job.done = MergeState.DONE, job.total
        self._jobs.pop(job.id, None)
        log.info("gguf_merged", job=job.id, target=merged.path, seconds=round(merged.seconds, 2), sha256=merged.sha256)
        if not merged.existed:  # else another instance has made it, and told
            await self._tell(job, GgufMergedV1(path=merged.path, parts=merged.parts, size=merged.size))

    async def _tell(self, job: Job, event: Event) -> None:
        await self._announcer.try_publish(event, aggregate_id=job.id)
