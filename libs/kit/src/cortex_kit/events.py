"""Publishing events: envelope, JetStream acknowledgement, deduplication by event id."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from nats.errors import Error as NatsError
from nats.js.errors import APIError
from prometheus_client import Counter

from cortex_contracts.envelope import Envelope
from cortex_contracts.events import Event
from cortex_kit.bus import Bus
from cortex_kit.clock import Clock, SystemClock
from cortex_kit.errors import TransientError
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger

log = get_logger()
EventT = TypeVar("EventT", bound=Event)

PUBLISH_TIMEOUT_S = 5.0
PUBLISHED = Counter("cortex_events_published_total", "Events published, by subject and outcome", ["subject", "outcome"])


@dataclass(frozen=True, slots=True)
class Origin:
    """What caused an event: the request or command it belongs to, and the event it follows from."""

    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


def new_envelope(  # noqa: PLR0913 - the envelope has that many attributes
    event: EventT,
    *,
    source: str,
    aggregate_id: str,
    now: datetime,
    version: int = 0,
    event_id: str | None = None,
    origin: Origin | None = None,
) -> Envelope[EventT]:
    """Wrap an event. Pure but for the id, which is made here unless given."""
    origin = origin or Origin()
    return Envelope[EventT](
        id=event_id or uuid7(),
        source=source,
        type=event.type_name(),
        subject=aggregate_id,
        time=now,
        data=event,
        aggregateversion=version,
        correlationid=origin.correlation_id,
        causationid=origin.causation_id,
        traceparent=origin.traceparent,
    )


class EventPublisher:
    """Publishes events of one service instance and waits until JetStream has stored them."""

    def __init__(self, bus: Bus, *, source: str, clock: Clock | None = None) -> None:
        self._bus = bus
        self._source = source
        self._clock = clock or SystemClock()

    async def publish(
        self,
        event: Event,
        *,
        aggregate_id: str,
        version: int = 0,
        event_id: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Publish and wait for the acknowledgement.

        Raises:
            TransientError: not confirmed. The event may have been stored: retry with the same `event_id` only.
        """
        envelope = new_envelope(
            event,
            source=self._source,
            aggregate_id=aggregate_id,
            now=self._clock.now(),
            version=version,
            event_id=event_id,
            origin=origin,
        )
        await self.publish_raw(event.SUBJECT, envelope.model_dump_json(exclude_none=True).encode(), envelope.id)

    async def publish_raw(
        self, subject: str, payload: bytes, event_id: str, *, content_type: str | None = None
    ) -> None:
        """Publish a ready envelope, or a batch of them; errors as `publish`."""
        headers = {"Nats-Msg-Id": event_id}
        if content_type is not None:
            headers["content-type"] = content_type
        try:
            if not self._bus.connected:
                raise TransientError("NATS is not connected")
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                await self._bus.js.publish(subject, payload, headers=headers)
        except (NatsError, APIError, OSError, TimeoutError, TransientError) as error:
            PUBLISHED.labels(subject, "failed").inc()
            raise TransientError(f"{subject} was not confirmed: {type(error).__name__}") from error
        PUBLISHED.labels(subject, "stored").inc()

    async def try_publish(
        self, event: Event, *, aggregate_id: str, version: int = 0, origin: Origin | None = None
    ) -> bool:
        """Publish for observers only: a failure is logged and counted, never raised. True when stored."""
        try:
            await self.publish(event, aggregate_id=aggregate_id, version=version, origin=origin)
        except TransientError as error:
            log.warning("event_not_published", subject=event.SUBJECT, aggregate_id=aggregate_id, error=str(error))
            return False
        return True
