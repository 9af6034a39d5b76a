"""Cancels that travel between gateways: asked of all, answered by the one that has the request."""

import asyncio

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from cortex_contracts.base import KeyId
from cortex_contracts.operations import CancelRequestV1, CancelResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import RPC_GATEWAY_CANCEL
from cortex_gateway.running import RunningRequests
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger

log = get_logger()

ANSWER_TIMEOUT_S = 1.0


class CancelBus:
    """See `cancelling.OtherGateways`."""

    def __init__(self, bus: Bus, running: RunningRequests) -> None:
        self._bus = bus
        self._running = running

    async def cancel(self, key_id: str, request_id: str) -> bool:
        if not self._bus.connected:
            return False
        message = CancelRequestV1(key_id=KeyId(key_id), request_id=request_id)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S + 0.5):
                await self._bus.request(RPC_GATEWAY_CANCEL, message, CancelResultV1, timeout=ANSWER_TIMEOUT_S)
        except (TransientError, DomainError, TimeoutError):
            return False
        return True

    async def run(self) -> None:
        """Listen to the others; a task of the service."""
        await self._bus.wait_connected()
        await self._bus.nc.subscribe(RPC_GATEWAY_CANCEL, cb=self._on_request)
        await asyncio.Event().wait()

    async def _on_request(self, message: Msg) -> None:
        try:
            asked = CancelRequestV1.model_validate_json(message.data)
        except ValidationError:
            log.warning("cancel_unreadable", bytes=len(message.data))
            return
        if not self._running.cancel(asked.key_id, asked.request_id) or not message.reply:
            return
        reply = RpcReply[CancelResultV1](result=CancelResultV1(request_id=asked.request_id))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._bus.nc.publish(message.reply, reply.model_dump_json().encode())
        except (NatsError, OSError, TimeoutError, TransientError) as error:
            log.warning("cancel_not_answered", error=repr(error))
