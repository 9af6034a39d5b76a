"""Request-reply: `rpc.gguf.scan`, `.merge` and `.verify`, shared by all instances through a queue group."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from faststream.nats import NatsBroker, NatsMessage
from pydantic import ValidationError

from cortex_contracts.base import ContractModel
from cortex_contracts.library import LibraryV1, MergeRequestV1, ScanRequestV1, VerifyRequestV1
from cortex_contracts.rpc import RpcError, RpcReply
from cortex_contracts.subjects import RPC_GGUF_MERGE, RPC_GGUF_SCAN, RPC_GGUF_VERIFY
from cortex_gguf_inspector.entrypoints.rpc import QUEUE
from cortex_gguf_inspector.handlers import LibraryHandler

REPLY_BYTES = 900_000
"""NATS refuses messages over 1 MiB by default."""
AT_ONCE = 4
RequestT = TypeVar("RequestT", bound=ContractModel)
ResultT = TypeVar("ResultT", bound=ContractModel)


def register_library(broker: NatsBroker, handler: LibraryHandler) -> None:
    """Answer library requests on this broker, malformed ones included."""

    @broker.subscriber(RPC_GGUF_SCAN, queue=QUEUE, max_workers=AT_ONCE)
    async def scan(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - FastStream keeps it
        return await _answer(message, ScanRequestV1, handler.scan)

    @broker.subscriber(RPC_GGUF_MERGE, queue=QUEUE, max_workers=AT_ONCE)
    async def merge(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - as above
        return await _answer(message, MergeRequestV1, handler.merge)

    @broker.subscriber(RPC_GGUF_VERIFY, queue=QUEUE, max_workers=AT_ONCE)
    async def verify(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - as above
        return await _answer(message, VerifyRequestV1, handler.verify)


async def _answer(
    message: NatsMessage, request: type[RequestT], work: Callable[[RequestT], Awaitable[RpcReply[ResultT]]]
) -> bytes:
    try:
        parsed = request.model_validate_json(message.body or b"{}")
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()}))
        problem = RpcError(
            code="invalid_request", message=f"the request is no {request.__name__}; see {fields or 'JSON'}"
        )
        return RpcReply[LibraryV1](error=problem).model_dump_json(exclude_none=True).encode()
    return _encoded(await work(parsed))


def _encoded(reply: RpcReply[ResultT]) -> bytes:
    """The reply, with fewer entries when a page would be too long for one message: the caller sees it by their number."""
    encoded = reply.model_dump_json(exclude_none=True).encode()
    while len(encoded) > REPLY_BYTES and isinstance(reply.result, LibraryV1) and len(reply.result.entries) > 1:
        entries = reply.result.entries
        shorter = reply.result.model_copy(update={"entries": entries[: len(entries) // 2]})
        reply = reply.model_copy(update={"result": shorter})
        encoded = reply.model_dump_json(exclude_none=True).encode()
    return encoded
