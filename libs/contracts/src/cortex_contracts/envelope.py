"""The envelope of every event: CloudEvents 1.0, structured JSON mode (https://github.com/cloudevents/spec, v1.0)."""

from typing import Generic, Literal, TypeVar

from pydantic import Field

from cortex_contracts.base import ContractModel, UtcDatetime
from cortex_contracts.events import EVENT_BY_TYPE, Event

EventT = TypeVar("EventT", bound=Event)


class Envelope(ContractModel, Generic[EventT]):
    """CloudEvents attributes plus our extension attributes (lower-case letters and digits, as the spec demands)."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    """UUIDv7; also the `Nats-Msg-Id`, so a repeated publish is stored once."""
    source: str
    """`cortex/<service>/<instance>`"""
    type: str
    """`<subject>.v<version>`"""
    subject: str
    """Id of the aggregate the event is about."""
    time: UtcDatetime
    datacontenttype: str = "application/json"
    dataschema: str | None = None
    data: EventT
    aggregateversion: int = Field(default=0, ge=0)
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None


class RawEnvelope(ContractModel):
    """An envelope whose payload has not been interpreted yet."""

    id: str
    source: str
    type: str
    subject: str
    time: UtcDatetime
    data: dict[str, object]
    aggregateversion: int = 0
    correlationid: str | None = None
    causationid: str | None = None


def parse_envelope(raw: bytes | str) -> Envelope[Event]:
    """Parse any known event.

    Raises:
        pydantic.ValidationError: malformed JSON, envelope or payload.
        KeyError: an event type this version does not know.
    """
    head = RawEnvelope.model_validate_json(raw)
    return Envelope[EVENT_BY_TYPE[head.type]].model_validate_json(raw)
