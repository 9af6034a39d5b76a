"""Request-reply: `rpc.gguf.inspect`, shared by all instances through a queue group."""

from faststream.nats import NatsBroker, NatsMessage
from pydantic import ValidationError

from cortex_contracts.rpc import InspectRequestV1, InspectResultV1, RpcError, RpcReply
from cortex_contracts.subjects import RPC_GGUF_INSPECT
from cortex_gguf_inspector.handlers import InspectHandler

QUEUE = "gguf-inspector"


def register(broker: NatsBroker, handler: InspectHandler) -> None:
    """Answer inspect requests on this broker, malformed ones included."""

    @broker.subscriber(RPC_GGUF_INSPECT, queue=QUEUE)
    async def inspect(message: NatsMessage) -> bytes:  # pyright: ignore[reportUnusedFunction] - FastStream keeps it
        try:
            request = InspectRequestV1.model_validate_json(message.body)
        except ValidationError:
            error = RpcError(code="invalid_request", message='the request is not of the form {"path": "..."}')
            return _encoded(RpcReply[InspectResultV1](error=error))
        return _encoded(await handler.inspect(request))


def _encoded(reply: RpcReply[InspectResultV1]) -> bytes:
    return reply.model_dump_json(exclude_none=True).encode()
