"""Request-reply: `rpc.gguf.estimate` and `rpc.gguf.recommend`, shared by all instances through a queue group."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from faststream.nats import NatsBroker, NatsMessage
from pydantic import ValidationError

from cortex_contracts.base import ContractModel
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import (
    CPU_DEVICE,
    EstimateRequestV1,
    EstimateResultV1,
    MemoryV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_contracts.rpc import RpcError, RpcReply
from cortex_contracts.subjects import RPC_GGUF_ESTIMATE, RPC_GGUF_RECOMMEND
from cortex_gguf_inspector.entrypoints.rpc import QUEUE
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.estimate.estimator import Estimator
from cortex_gguf_inspector.estimate.fit_params import FitParams, find_fit_params, with_free
from cortex_gguf_inspector.limits import Limits
from cortex_kit.errors import TransientError

WORKERS = 2
DEADLINE_S = 30.0
RequestT = TypeVar("RequestT", bound=ContractModel)
ResultT = TypeVar("ResultT", bound=ContractModel)


@dataclass(frozen=True, slots=True)
class EstimateHandler:
    """Computes in threads of its own: a dead file system stops estimates and nothing else. Always answers."""

    root: Path | None
    limits: Limits
    executor: ThreadPoolExecutor
    engine: FitParams | None

    async def estimate(self, request: EstimateRequestV1) -> RpcReply[EstimateResultV1]:
        """By formula, or by the engine's own tool when asked and there is one."""
        reply = await self._work(lambda estimator: estimator.estimate(request))
        if reply.result is None or not request.ask_engine:
            return reply
        return RpcReply[EstimateResultV1](result=await self._asked(request, reply.result))

    async def recommend(self, request: RecommendRequestV1) -> RpcReply[RecommendResultV1]:
        """Options for the request's host."""
        return await self._work(lambda estimator: estimator.recommend(request))

    async def _work(self, job: Callable[[Estimator], ResultT]) -> RpcReply[ResultT]:
        try:
            return RpcReply(result=await self._in_thread(job))
        except GgufError as error:
            return RpcReply(error=RpcError(code=error.code, message=error.message))

    async def _in_thread(self, job: Callable[[Estimator], ResultT]) -> ResultT:
        if self.root is None:
            message = "no models directory is configured (CORTEX_MODELS_DIR)"
            raise GgufError(GgufErrorCode.MODELS_DIR_UNAVAILABLE, message)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await loop.run_in_executor(self.executor, job, Estimator(self.root, self.limits))
        except TimeoutError as error:
            message = f"the estimate was not ready within {DEADLINE_S:g} s"
            raise GgufError(GgufErrorCode.TIMEOUT, message) from error

    async def _asked(self, request: EstimateRequestV1, formula: EstimateResultV1) -> EstimateResultV1:
        options = request.llamacpp
        if self.root is None or request.engine_type is not EngineType.LLAMACPP or options is None:
            return formula
        if self.engine is None:
            return _noted(formula, "this node has no fit-params tool: the formula answers")
        try:
            found = await self.engine.ask(self.root / formula.path, options)
        except TransientError as error:
            return _noted(formula, f"the engine did not answer ({error}): the formula does")
        devices = with_free(_with_relaid(found, formula), request.devices, request.host.memory_free)
        return formula.model_copy(
            update={
                "source": "engine",
                "known": True,
                "reason": "",
                "devices": devices,
                "total": sum(memory.total for memory in devices),
                "fits": None if any(memory.fits is None for memory in devices) else all(m.fits for m in devices),
            }
        )


def _with_relaid(found: Sequence[MemoryV1], formula: EstimateResultV1) -> tuple[MemoryV1, ...]:
    """The tool leaves weights that the CPU re-lays out of its line for the host: the formula's count them."""
    ours = next((memory.weights for memory in formula.devices if memory.device == CPU_DEVICE), 0)
    return tuple(
        memory.model_copy(update={"weights": ours, "total": memory.total - memory.weights + ours})
        if memory.device == CPU_DEVICE and memory.weights < ours
        else memory
        for memory in found
    )


def _noted(result: EstimateResultV1, warning: str) -> EstimateResultV1:
    return result.model_copy(update={"warnings": (*result.warnings, warning)})


def attach_estimates(broker: NatsBroker, root: Path | None, limits: Limits) -> None:
    """Answer estimate and recommend requests on this broker, malformed ones included."""
    executor = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="estimate")
    handler = EstimateHandler(root, limits, executor, find_fit_params())

    @broker.subscriber(RPC_GGUF_ESTIMATE, queue=QUEUE, max_workers=WORKERS)
    async def estimate(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - FastStream keeps it
        return await _answer(message, EstimateRequestV1, handler.estimate)

    @broker.subscriber(RPC_GGUF_RECOMMEND, queue=QUEUE, max_workers=WORKERS)
    async def recommend(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - as above
        return await _answer(message, RecommendRequestV1, handler.recommend)


async def _answer(
    message: NatsMessage, request: type[RequestT], work: Callable[[RequestT], Awaitable[RpcReply[ResultT]]]
) -> bytes:
    try:
        parsed = request.model_validate_json(message.body)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()}))
        problem = RpcError(code="invalid_request", message=f"the request is no {request.__name__}: {fields or 'JSON'}")
        return RpcReply[EstimateResultV1](error=problem).model_dump_json(exclude_none=True).encode()
    return (await work(parsed)).model_dump_json(exclude_none=True).encode()
