"""Request-reply endpoint that examines this node."""

from faststream.nats import NatsBroker

from cortex_contracts.base import NodeId
from cortex_contracts.doctor import ExamineRequestV1, ExamineResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import rpc_examine
from cortex_orchestrator.handlers.doctor import Doctor


def bind_doctor(broker: NatsBroker, doctor: Doctor, node: NodeId) -> None:
    """Answer for this node; one of its orchestrators gets each request."""

    @broker.subscriber(rpc_examine(node), queue="orchestrator")
    async def examine(request: ExamineRequestV1) -> RpcReply[ExamineResultV1]:
        del request
        return RpcReply[ExamineResultV1](result=await doctor.examine())

    _ = examine
