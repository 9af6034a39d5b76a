"""FastStream on NATS with our delivery policy: nothing is lost, nothing is retried for ever (docs/adr/0002).

FastStream's own policies would drop a message on the first unhandled exception, or redeliver it at once.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, cast

from faststream import BaseMiddleware
from faststream.exceptions import NackMessage, RejectMessage
from faststream.message import StreamMessage
from faststream.middlewares import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.security import SASLPlaintext
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NotJSMessageError
from nats.js.api import AckPolicy as JetStreamAckPolicy
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError
from prometheus_client import Counter
from pydantic import SecretStr, ValidationError

from cortex_contracts.streams import ConsumerSpec
from cortex_contracts.subjects import dead_letter
from cortex_kit.bus import (
    API_TIMEOUT_S,
    MAX_OUTSTANDING_PINGS,
    PING_INTERVAL_S,
    RECONNECT_WAIT_S,
    Bus,
    inbox_prefix,
    split_url,
)
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.logging import get_logger

log = get_logger()

HANDLED = Counter("cortex_messages_handled_total", "Messages handled, by consumer and outcome", ["consumer", "outcome"])
RETRY_MAX_S = 30.0


def retry_delay(deliveries: int) -> float:
    """Seconds before the next delivery: 0.5, 1, 2 ... 30."""
    return min(RETRY_MAX_S, 0.5 * 2 ** max(0, min(deliveries, 10) - 1))


class DeliveryPolicy(BaseMiddleware[Any, Any]):
    """Maps our errors to acknowledgements, inside FastStream's own acknowledgement middleware."""

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        raw = cast(Msg, msg.raw_message)
        try:
            metadata = raw.metadata
        except NotJSMessageError:
            return await call_next(msg)  # request-reply: the handler answers with its errors
        consumer, deliveries = metadata.consumer, metadata.num_delivered
        try:
            result = await call_next(msg)
        except TransientError as error:
            HANDLED.labels(consumer, "retried").inc()
            delay = retry_delay(deliveries)
            log.warning("message_retried", consumer=consumer, deliveries=deliveries, delay_s=delay, error=str(error))
            raise NackMessage(delay=delay) from error
        except (PermanentError, ValidationError) as error:
            await self._bury(raw, consumer, error)
            HANDLED.labels(consumer, "buried").inc()
            raise RejectMessage from error
        except Exception as error:
            # A handler's bug must not lose the message: it is retried, and buried when deliveries run out.
            HANDLED.labels(consumer, "crashed").inc()
            log.exception("message_handler_crashed", consumer=consumer, deliveries=deliveries)
            raise NackMessage(delay=retry_delay(deliveries)) from error
        HANDLED.labels(consumer, "acknowledged").inc()
        return result

    async def _bury(self, raw: Msg, consumer: str, error: Exception) -> None:
        broker = cast(NatsBroker, self.context.get("broker"))
        headers = {
            "Cortex-Subject": raw.subject,
            "Cortex-Error": _describe(error),
            "Nats-Msg-Id": f"{consumer}-{raw.metadata.stream}-{raw.metadata.sequence.stream}",
        }
        log.error("message_buried", consumer=consumer, subject=raw.subject, error=headers["Cortex-Error"])
        try:
            await broker.publish(raw.data, dead_letter(consumer), headers=headers, stream="DLQ", timeout=API_TIMEOUT_S)
        except (NatsError, APIError, OSError, TimeoutError) as failure:
            raise NackMessage(delay=5.0) from failure

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        return False


async def bury_part(broker: NatsBroker, raw: Msg, part: bytes, index: int, error: Exception) -> None:
    """Put one part of a message into the dead letters of its consumer, so that the rest can be acknowledged.

    Raises:
        TransientError: the dead letter was not confirmed.
    """
    metadata = raw.metadata
    headers = {
        "Cortex-Subject": raw.subject,
        "Cortex-Error": _describe(error),
        "Nats-Msg-Id": f"{metadata.consumer}-{metadata.stream}-{metadata.sequence.stream}-{index}",
    }
    log.error("message_part_buried", consumer=metadata.consumer, subject=raw.subject, error=headers["Cortex-Error"])
    try:
        await broker.publish(part, dead_letter(metadata.consumer), headers=headers, stream="DLQ", timeout=API_TIMEOUT_S)
    except (NatsError, APIError, OSError, TimeoutError) as failure:
        raise TransientError("the dead letter was not confirmed") from failure
    HANDLED.labels(metadata.consumer, "buried").inc()


def _describe(error: Exception) -> str:
    """One line without the payload, which may hold what no header or log should."""
    if isinstance(error, ValidationError):
        problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['type']}" for item in error.errors()]
        return f"ValidationError: {'; '.join(problems)}"[:500]
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:500]


class _ClosedGuard:
    """FastStream's pull loop would spin for ever on a closed connection: end the process instead."""

    def __init__(self) -> None:
        self.stopping = False

    async def on_closed(self) -> None:
        if not self.stopping:
            log.error("nats_broker_connection_closed")
            os._exit(1)


def new_broker(url: SecretStr, *, name: str) -> NatsBroker:
    """A broker that never gives up reconnecting and never loses a message to an exception."""
    address, user, password = split_url(url)
    security = SASLPlaintext(username=user, password=password) if user and password else None
    guard = _ClosedGuard()
    broker = NatsBroker(
        [address],
        name=name,
        security=security,
        inbox_prefix=inbox_prefix(user),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        middlewares=[DeliveryPolicy],
        max_reconnect_attempts=-1,
        reconnect_time_wait=int(RECONNECT_WAIT_S),
        ping_interval=PING_INTERVAL_S,
        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
        graceful_timeout=10.0,
        closed_cb=guard.on_closed,
        logger=None,
    )
    broker.context.set_global("broker", broker)
    broker.context.set_global("inbox_prefix", inbox_prefix(user) + b".")
    broker.context.set_global("closed_guard", guard)
    return broker


def durable(broker: NatsBroker, spec: ConsumerSpec, *, concurrency: int = 10) -> Callable[[Any], Any]:
    """Decorator: consume a provisioned durable, one message a call, `concurrency` of them at once.

    The message is acknowledged after the handler has returned. TransientError: delivered again, later and later.
    PermanentError or a payload that does not parse: moved to `dlq.<durable>`.
    """
    return cast(
        Callable[[Any], Any],
        broker.subscriber(
            spec.filter_subject,
            stream=JStream(spec.stream, declare=False),
            durable=spec.durable,
            config=ConsumerConfig(
                ack_policy=JetStreamAckPolicy.EXPLICIT,
                ack_wait=spec.ack_wait_s,
                max_deliver=spec.max_deliver,
                max_ack_pending=spec.max_ack_pending,
            ),
            pull_sub=PullSub(batch_size=concurrency),
            inbox_prefix=cast(bytes, broker.context.get("inbox_prefix")),
        ),
    )


async def run_broker(broker: NatsBroker, bus: Bus, consumers: Sequence[ConsumerSpec] = ()) -> None:
    """Task: start once everything is provisioned, stay until cancelled, then stop.

    Raises:
        TransientError: a durable vanished with the store and was not provisioned again; the service must restart.
    """
    reconnected = asyncio.Event()

    async def on_reconnect() -> None:
        reconnected.set()

    bus.on_reconnect(on_reconnect)
    await bus.wait_provisioned(consumers=consumers)
    try:
        await broker.start()
        log.info("broker_started", consumers=[spec.durable for spec in consumers])
        while True:
            await reconnected.wait()
            reconnected.clear()
            try:
                async with asyncio.timeout(10):
                    await bus.wait_provisioned(consumers=consumers)
            except TimeoutError as error:
                raise TransientError("durables were not provisioned again after a reconnect") from error
    finally:
        cast(_ClosedGuard, broker.context.get("closed_guard")).stopping = True
        async with asyncio.timeout(15):
            await broker.stop()
