"""Request-reply endpoints on NATS."""

from faststream.nats import NatsBroker

from cortex_contracts.base import NodeId
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1, RpcError, RpcReply
from cortex_contracts.subjects import rpc_logs
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.handlers.logs import read_logs
from cortex_orchestrator.ports import EngineRuntime


def bind(broker: NatsBroker, runtime: EngineRuntime, node: NodeId) -> None:
    """Answer for the logs of this node's engines."""

    @broker.subscriber(rpc_logs(node), queue="orchestrator")
    async def logs(request: LogsRequestV1) -> RpcReply[LogsResultV1]:
        try:
            return RpcReply[LogsResultV1](result=await read_logs(runtime, request))
        except DomainError as error:
            return RpcReply[LogsResultV1](error=RpcError(code=error.code, message=error.message))
        except TransientError as error:
            return RpcReply[LogsResultV1](error=RpcError(code="runtime_unreachable", message=str(error)))

    _ = logs
