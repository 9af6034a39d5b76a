"""Request-reply with orchestrators, the health service and the inspector."""

import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

from cortex_contracts import subjects
from cortex_contracts.base import ContractModel, ModelId, NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.estimates import (
    EstimateRequestV1,
    EstimateResultV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_contracts.library import LibraryV1, ScanRequestV1
from cortex_contracts.operations import DryRunRequestV1, DryRunResultV1, LogsChunkV1, TestRequestV1, TestResultV1
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.log_follow import follow_logs
from cortex_registry.errors import UnavailableError

ReplyT = TypeVar("ReplyT", bound=ContractModel)
NOT_FOUND = frozenset({"model_not_found", "replica_not_found"})


class NatsOperations:
    """Operations of models that run."""

    def __init__(self, bus: Bus, *, dry_run_timeout_s: float, test_timeout_s: float) -> None:
        self._bus = bus
        self._dry_run_timeout_s = dry_run_timeout_s
        self._test_timeout_s = test_timeout_s

    async def dry_run(self, model: ModelDocumentV1, estimate: EstimateResultV1 | None) -> DryRunResultV1:
        request = DryRunRequestV1(model=model, estimate=estimate)
        try:
            return await self._bus.request(
                subjects.RPC_ORCHESTRATOR_DRY_RUN, request, DryRunResultV1, timeout=self._dry_run_timeout_s
            )
        except TransientError as error:
            message = "No orchestrator answers, so the command line is not known. Try again in a moment."
            raise UnavailableError("orchestrator_unavailable", message) from error

    async def test(self, request: TestRequestV1) -> TestResultV1:
        try:
            return await self._bus.request(
                subjects.RPC_HEALTH_TEST, request, TestResultV1, timeout=self._test_timeout_s
            )
        except TransientError as error:
            message = "The health service does not answer, so the model cannot be tested. Try again in a moment."
            raise UnavailableError("health_unavailable", message) from error
        except DomainError as error:
            status = 404 if error.code in NOT_FOUND else 409
            raise DomainError(error.code, error.message, status=status) from error

    async def follow(self, node: str, model_id: ModelId, ordinal: int, tail: int) -> AsyncGenerator[LogsChunkV1, None]:
        try:
            async with contextlib.aclosing(follow_logs(self._bus, NodeId(node), model_id, ordinal, tail)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except TransientError as error:
            message = f"The orchestrator of node {node} does not answer. Try again in a moment."
            raise UnavailableError("orchestrator_unavailable", message) from error


class NatsLibrary:
    """The inspector's estimates and its view of the models folder."""

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        return await self._ask(subjects.RPC_GGUF_ESTIMATE, request, EstimateResultV1)

    async def recommend(self, request: RecommendRequestV1) -> RecommendResultV1:
        return await self._ask(subjects.RPC_GGUF_RECOMMEND, request, RecommendResultV1)

    async def scan(self, request: ScanRequestV1) -> LibraryV1:
        return await self._ask(subjects.RPC_GGUF_SCAN, request, LibraryV1)

    async def _ask(self, subject: str, request: ContractModel, reply: type[ReplyT]) -> ReplyT:
        try:
            return await self._bus.request(subject, request, reply, timeout=self._timeout_s)
        except TransientError as error:
            message = "The GGUF inspector does not answer. Try again in a moment."
            raise UnavailableError("inspector_unavailable", message) from error
