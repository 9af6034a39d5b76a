"""The envelope of every event: CloudEvents 1.0, structured JSON mode (https://github.com/cloudevents/spec, v1.0)."""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import Field
from pydantic_core import from_json, to_json

from cortex_contracts.base import ContractModel, UtcDatetime
from cortex_contracts.events import EVENT_BY_TYPE, Event

EventT = TypeVar("EventT", bound=Event)

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
"""Header `content-type` of a message that holds an array of envelopes (CloudEvents' JSON batch format)."""
MAX_BATCH = 1000


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


def join_batch(envelopes: Sequence[bytes]) -> bytes:
    """Several envelopes, each a JSON object, as one message."""
    return b"[" + b",".join(envelopes) + b"]"


def split_batch(raw: bytes) -> tuple[bytes, ...]:
    """The envelopes of a message, be it one or a batch; each is still to be parsed, so that one that is malformed
    does not spoil the others.

    Raises:
        ValueError: a batch that is no JSON array, or one of more than MAX_BATCH.
    """
    if raw.lstrip()[:1] != b"[":
        return (raw,)
    items = from_json(raw)
    if len(items) > MAX_BATCH:
        raise ValueError(f"a batch of {len(items)} envelopes is larger than {MAX_BATCH}")
    return tuple(to_json(item) for item in items)
