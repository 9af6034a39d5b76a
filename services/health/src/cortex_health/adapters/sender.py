"""Sends a message to an inbox, now or not at all."""

from collections.abc import Awaitable, Callable

from nats.errors import Error as NatsError

from cortex_contracts.base import ContractModel
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError


def sender(bus: Bus) -> Callable[[str, ContractModel], Awaitable[None]]:
    """A sender that never queues while NATS is away: it raises TransientError instead."""

    async def send(subject: str, message: ContractModel) -> None:
        if not bus.connected:
            raise TransientError("NATS is not connected")
        try:
            await bus.nc.publish(subject, message.model_dump_json().encode())
        except (NatsError, OSError) as error:
            raise TransientError(f"{subject} cannot be reached: {type(error).__name__}") from error

    return send
