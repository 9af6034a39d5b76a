"""Request-reply endpoint that lists this node's engine images."""

from faststream.nats import NatsBroker

from cortex_contracts.base import NodeId
from cortex_contracts.images import ImagesRequestV1, ImagesResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import rpc_images
from cortex_orchestrator.handlers.images import Images


def bind_images(broker: NatsBroker, images: Images, node: NodeId) -> None:
    """Answer for this node; one of its orchestrators gets each request."""

    @broker.subscriber(rpc_images(node), queue="orchestrator")
    async def list_images(request: ImagesRequestV1) -> RpcReply[ImagesResultV1]:
        return RpcReply[ImagesResultV1](result=await images.list(request.references))

    _ = list_images
