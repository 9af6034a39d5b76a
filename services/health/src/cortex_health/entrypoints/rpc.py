"""Request-reply: `rpc.health.test`, shared by all instances, and `rpc.health.probe`, heard by all and answered by one."""

from collections.abc import Awaitable, Callable

from faststream.nats import NatsBroker, NatsMessage

from cortex_contracts.base import ContractModel, ReplicaId
from cortex_contracts.operations import ProbeRequestV1, ProbeResultV1, TestRequestV1, TestResultV1
from cortex_contracts.rpc import RpcError, RpcReply
from cortex_contracts.subjects import RPC_HEALTH_PROBE, RPC_HEALTH_TEST
from cortex_health.handlers import Prober
from cortex_health.tester import Tester
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger

log = get_logger()
QUEUE = "health"
FORWARD_TIMEOUT_S = 1.0


def bind_test(broker: NatsBroker, tester: Tester) -> None:
    """Send one small real request."""

    @broker.subscriber(RPC_HEALTH_TEST, queue=QUEUE, max_workers=4)
    async def test(request: TestRequestV1) -> RpcReply[TestResultV1]:
        try:
            return RpcReply[TestResultV1](result=await tester.test(request))
        except DomainError as error:
            return RpcReply[TestResultV1](error=RpcError(code=error.code, message=error.message))

    _ = test


def bind_probe(broker: NatsBroker, prober: Prober, send: Callable[[str, ContractModel], Awaitable[None]]) -> None:
    """Probe now. Every instance hears it and probes its own; one of them answers."""

    @broker.subscriber(RPC_HEALTH_PROBE, no_reply=True)
    async def probe(request: ProbeRequestV1, message: NatsMessage) -> None:
        replicas = _probe(prober, request)
        if replicas is None or not message.reply_to:
            return
        reply = RpcReply[ProbeResultV1](result=ProbeResultV1(replicas=replicas))
        try:
            await send(message.reply_to, reply)
        except TransientError as error:
            log.warning("reply_failed", error=str(error))

    _ = probe


def _probe(prober: Prober, request: ProbeRequestV1) -> tuple[ReplicaId, ...] | None:
    if request.replica_id is None:
        return prober.probe_now(request.model_id)
    return (request.replica_id,) if prober.suspect(request.replica_id) else None


def forwarder(bus: Bus) -> Callable[[ReplicaId], Awaitable[None]]:
    """Asks the member that probes a replica to do so now."""

    async def forward(replica_id: ReplicaId) -> None:
        request = ProbeRequestV1(replica_id=replica_id)
        await bus.request(RPC_HEALTH_PROBE, request, ProbeResultV1, timeout=FORWARD_TIMEOUT_S)

    return forward
