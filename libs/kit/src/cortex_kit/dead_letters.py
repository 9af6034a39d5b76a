"""Messages whose deliveries ran out: copied to the dead-letter stream, told by JetStream's own advisories."""

import json

from faststream.nats import NatsBroker
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from pydantic import Field

from cortex_contracts.base import ContractModel
from cortex_contracts.streams import DEAD_LETTERS
from cortex_contracts.subjects import dead_letter
from cortex_kit.broker import durable
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()


class MaxDeliveriesAdvisory(ContractModel):
    """`io.nats.jetstream.advisory.v1.max_deliver`."""

    stream: str
    consumer: str
    stream_seq: int = Field(ge=1)
    deliveries: int


def attach_dead_letters(broker: NatsBroker, bus: Bus) -> None:
    """Subscribe the service that owns the streams to the max-deliveries advisories."""

    @durable(broker, DEAD_LETTERS, concurrency=1)
    async def on_max_deliveries(advisory: MaxDeliveriesAdvisory) -> None:
        await bury(bus, advisory)


async def bury(bus: Bus, advisory: MaxDeliveriesAdvisory) -> None:
    """Copy the exhausted message to `dlq.<consumer>`; the stream keeps the original.

    Raises:
        TransientError: NATS did not confirm.
    """
    try:
        message = await bus.js.get_msg(advisory.stream, seq=advisory.stream_seq)
    except NotFoundError:
        return
    except (NatsError, OSError) as error:
        raise TransientError("the exhausted message could not be read") from error
    headers = {
        "Cortex-Subject": message.subject or "",
        "Cortex-Error": json.dumps({"reason": "max deliveries", "deliveries": advisory.deliveries}),
        "Nats-Msg-Id": f"{advisory.consumer}-{advisory.stream}-{advisory.stream_seq}",
    }
    try:
        await bus.js.publish(dead_letter(advisory.consumer), message.data or b"", headers=headers)
    except (NatsError, OSError) as error:
        raise TransientError("the dead letter was not confirmed") from error
    log.error("message_exhausted", consumer=advisory.consumer, stream=advisory.stream, sequence=advisory.stream_seq)
