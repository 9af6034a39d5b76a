"""Request-reply endpoints and the consumed events on NATS."""

from collections.abc import Awaitable, Callable

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.base import ContractModel, NodeId
from cortex_contracts.envelope import Envelope
from cortex_contracts.events import ModelDemandedV1
from cortex_contracts.operations import LogsFollowRequestV1, LogsFollowStartedV1
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1, RpcError, RpcReply
from cortex_contracts.streams import ORCHESTRATOR_DEMANDED
from cortex_contracts.subjects import rpc_logs, rpc_logs_follow
from cortex_kit.broker import durable
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.handlers.log_follows import LogFollows
from cortex_orchestrator.handlers.logs import read_logs
from cortex_orchestrator.handlers.wake import Waker
from cortex_orchestrator.ports import EngineRuntime

log = get_logger()


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


def bind_demands(broker: NatsBroker, waker: Waker) -> None:
    """Wake the models that requests came for; acknowledged once a start has begun."""

    @durable(broker, ORCHESTRATOR_DEMANDED)
    async def demanded(message: NatsMessage) -> None:
        envelope = Envelope[ModelDemandedV1].model_validate_json(message.body)
        await waker.demanded(envelope.data.model_id, envelope.time)

    _ = demanded


def bind_log_follows(
    broker: NatsBroker, follows: LogFollows, node: NodeId, send: Callable[[str, ContractModel], Awaitable[None]]
) -> None:
    """Answer for live logs. Every orchestrator of the node hears every request: only the right one answers."""

    @broker.subscriber(rpc_logs_follow(node), no_reply=True)
    async def follow(request: LogsFollowRequestV1, message: NatsMessage) -> None:
        try:
            started = await follows.ask(request)
            reply = RpcReply[LogsFollowStartedV1](result=started)
        except DomainError as error:
            reply = RpcReply[LogsFollowStartedV1](error=RpcError(code=error.code, message=error.message))
        except TransientError as error:
            reply = RpcReply[LogsFollowStartedV1](error=RpcError(code="runtime_unreachable", message=str(error)))
        if not message.reply_to or (reply.result is None and reply.error is None):
            return
        try:
            await send(message.reply_to, reply)
        except TransientError as error:
            log.warning("reply_failed", error=str(error))

    _ = follow
