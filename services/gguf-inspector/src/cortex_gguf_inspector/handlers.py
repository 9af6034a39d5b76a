"""Requests and the watch: each request is answered, with a result or with an error that has a stable code."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cortex_contracts.base import ContractModel
from cortex_contracts.library import (
    LibraryV1,
    MergeRequestV1,
    MergeStartedV1,
    ScanRequestV1,
    VerifyRequestV1,
    VerifyResultV1,
)
from cortex_contracts.rpc import InspectRequestV1, InspectResultV1, RpcError, RpcReply
from cortex_gguf_inspector.catalog import Catalog, Reconciler
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.library.scan import Snapshot
from cortex_gguf_inspector.metrics import ENTRIES, INSPECT_SECONDS, INSPECTIONS, SCAN_SECONDS, SCANS
from cortex_gguf_inspector.ports import Inspector, KnownDocuments, Leadership, LibraryDisk, Merges
from cortex_kit.logging import get_logger

log = get_logger()
ResultT = TypeVar("ResultT", bound=ContractModel)


class InspectHandler:
    """Inspect on request: the answer is for the caller, documents and events are for others."""

    def __init__(self, inspector: Inspector, catalog: Catalog) -> None:
        self._inspector = inspector
        self._catalog = catalog

    async def inspect(self, request: InspectRequestV1) -> RpcReply[InspectResultV1]:
        """Answers also while nothing can be stored."""
        try:
            with INSPECT_SECONDS.time():
                result = await self._inspector.inspect(request.path)
        except GgufError as error:
            INSPECTIONS.labels(error.code).inc()
            await self._catalog.rejected(request.path, error.code, error.message)
            return RpcReply[InspectResultV1](error=RpcError(code=error.code, message=error.message))
        INSPECTIONS.labels("ok").inc()
        document = await self._catalog.inspected(result.gguf)
        return RpcReply[InspectResultV1](result=InspectResultV1(path=result.path, gguf=document))


class LibraryHandler:
    """Scan, verify and merge on request."""

    def __init__(self, disk: LibraryDisk, merges: Merges) -> None:
        self._disk = disk
        self._merges = merges

    async def scan(self, request: ScanRequestV1) -> RpcReply[LibraryV1]:
        """A page of the library."""
        return await _answered(RpcReply[LibraryV1], lambda: self._disk.page(request))

    async def verify(self, request: VerifyRequestV1) -> RpcReply[VerifyResultV1]:
        """What is wrong with the files is in the result; an error says why they could not be looked at."""
        return await _answered(RpcReply[VerifyResultV1], lambda: self._disk.verify(request))

    async def merge(self, request: MergeRequestV1) -> RpcReply[MergeStartedV1]:
        """Answers when the merge is planned, not when it is done."""

        async def started() -> MergeStartedV1:
            job = await self._merges.request(request)
            return MergeStartedV1(
                job=job.id,
                path=str(job.target),
                state=job.state,
                parts=job.prepared.plan.parts,
                total_bytes=job.total,
                done_bytes=job.done,
                code=job.error.code if job.error else None,
                reason=job.error.message if job.error else "",
            )

        return await _answered(RpcReply[MergeStartedV1], started)


async def _answered(reply: type[RpcReply[ResultT]], work: Callable[[], Awaitable[ResultT]]) -> RpcReply[ResultT]:
    try:
        return reply(result=await work())
    except GgufError as error:
        return reply(error=RpcError(code=error.code, message=error.message))


class Watcher:
    """Scans again and again. Every instance knows the library; the one with the lease writes and tells."""

    def __init__(
        self,
        disk: LibraryDisk,
        reconciler: Reconciler,
        known: KnownDocuments,
        leadership: Leadership,
        *,
        interval_s: float,
    ) -> None:
        self._disk = disk
        self._reconciler = reconciler
        self._known = known
        self._leadership = leadership
        self._interval_s = interval_s
        self._problem: str | None = None

    async def run(self) -> None:
        """Task: until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """One scan and what follows from it. A directory that is away changes nothing."""
        try:
            with SCAN_SECONDS.time():
                snapshot = await self._disk.scan()
        except GgufError as error:
            SCANS.labels(error.code).inc()
            self._say(f"{error.code}: {error.message}")
            return
        SCANS.labels("ok").inc()
        self._count(snapshot)
        self._say("; ".join(snapshot.notes) or None)
        if self._leadership.held and self._known.synced:
            await self._reconciler.apply(snapshot)
        else:
            self._reconciler.follow(snapshot)

    def _say(self, problem: str | None) -> None:
        """Log a problem when it is new, not once per scan."""
        if problem not in (None, self._problem):
            log.warning("library_scan", problem=problem)
        self._problem = problem

    def _count(self, snapshot: Snapshot) -> None:
        ENTRIES.clear()
        for entry in snapshot.entries:
            ENTRIES.labels(entry.format.value, entry.state.value).inc()
