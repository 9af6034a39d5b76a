"""Routes of what models do, would do, and did: dry runs, logs, tests, readiness, load, revisions."""

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from fastapi.responses import StreamingResponse

from cortex_contracts.operations import LogsChunkV1, TestResultV1
from cortex_contracts.rights import Right
from cortex_contracts.rpc import LogsResultV1
from cortex_registry.domain.submission import Submission
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.models import ONE
from cortex_registry.entrypoints.schemas.models_acts import (
    ApplyAnswer,
    DryRunAnswer,
    FreeFields,
    LogsAnswer,
    MetricsList,
    ModelMetrics,
    ReadinessAnswer,
    TestRequest,
)
from cortex_registry.handlers.models import ModelService
from cortex_registry.handlers.models_dry_run import DryRuns
from cortex_registry.handlers.models_runtime import ModelRuntime

_EVENT_STREAM = {
    200: {
        "description": "The lines; with `follow` a stream of events `log` and, at last, `end`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


class ModelRuntimeRoutes:
    """Below /admin/models."""

    def __init__(self, service: ModelService, runtime: ModelRuntime, dry_runs: DryRuns) -> None:
        self._service = service
        self._runtime = runtime
        self._dry_runs = dry_runs

    def router(self) -> APIRouter:
        routes = Routes("models")
        read = Right.MODELS_READ
        routes.add("GET", "/models/metrics", self.metrics, read)
        routes.add("POST", "/models/dry-run", self.dry_run_new, read)
        routes.add("POST", f"{ONE}/dry-run", self.dry_run, read)
        routes.add("POST", f"{ONE}/apply", self.apply, Right.MODELS_OPERATE)
        routes.add("POST", f"{ONE}/test", self.test, Right.MODELS_OPERATE)
        routes.add("GET", f"{ONE}/readiness", self.readiness, read)
        routes.add(
            "GET",
            f"{ONE}/logs",
            self.logs,
            Right.LOGS_READ,
            response_model=LogsAnswer,
            response_model_exclude_none=True,
            responses=_EVENT_STREAM,
        )
        return routes.router

    async def metrics(self) -> MetricsList:
        """State and load of every model, as last probed."""
        return MetricsList(items=[ModelMetrics.of(observed) for observed in await self._runtime.metrics()])

    async def dry_run_new(self, submission: Annotated[Submission, Body()]) -> DryRunAnswer:
        """What would become of a model that is not stored: command line, memory, placement, warnings."""
        return DryRunAnswer.of(await self._dry_runs.of_new(submission))

    async def dry_run(self, reference: str, patch: Annotated[FreeFields | None, Body()] = None) -> DryRunAnswer:
        """What would become of a stored model after a patch: command line, memory, placement, warnings."""
        return DryRunAnswer.of(await self._dry_runs.of_stored(reference, patch or {}))

    async def apply(self, reference: str, caller: CallerOf, expected: IfMatch, response: Response) -> ApplyAnswer:
        """Make the running engines equal to the configuration; says what changes."""
        applied = await self._runtime.apply(reference, caller, expected=expected)
        show_version(response, applied.changed.observed.model.version)
        return ApplyAnswer.of(applied)

    async def test(self, reference: str, body: TestRequest | None = None) -> TestResultV1:
        """One small real request to a healthy replica. 409 when there is none; `ok` says whether it was answered."""
        wanted = body or TestRequest()
        return await self._runtime.test(reference, ordinal=wanted.ordinal, prompt=wanted.prompt)

    async def readiness(self, reference: str) -> ReadinessAnswer:
        """Whether requests are answered now, and if not, why."""
        return ReadinessAnswer.of(await self._service.get(reference))

    async def logs(
        self,
        reference: str,
        tail: Annotated[int, Query(ge=1, le=5000)] = 200,
        ordinal: Annotated[int, Query(ge=0, le=1023)] = 0,
        follow: Annotated[bool, Query(description="Go on with what comes, as server-sent events.")] = False,
        diagnose: Annotated[bool, Query(description="With what went wrong, as far as the output tells.")] = False,
    ) -> LogsAnswer | StreamingResponse:
        """The last lines of one replica's engine."""
        if follow:
            chunks = await self._runtime.follow(reference, ordinal=ordinal, tail=tail)
            return StreamingResponse(
                _events(chunks), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        found: LogsResultV1 = await self._runtime.logs(reference, ordinal=ordinal, tail=tail)
        if not diagnose:
            return LogsAnswer(lines=found.lines)
        replica = await self._runtime.replica(reference, ordinal)
        return LogsAnswer(lines=found.lines, diagnosis=replica.diagnosis, reason=replica.reason)


async def _events(chunks: AsyncGenerator[LogsChunkV1, None]) -> AsyncGenerator[str, None]:
    """A sign of life becomes a comment, so that proxies keep the connection."""
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            if chunk.lines or chunk.skipped:
                data = json.dumps({"lines": chunk.lines, "skipped": chunk.skipped})
                yield f"id: {chunk.sequence}\nevent: log\ndata: {data}\n\n"
            elif chunk.ended is None:
                yield ": alive\n\n"
            if chunk.ended is not None:
                yield f"event: end\ndata: {json.dumps({'reason': chunk.ended})}\n\n"
