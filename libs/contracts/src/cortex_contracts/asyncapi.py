"""The AsyncAPI 3.0 description of every event, made from the classes. `python -m cortex_contracts.asyncapi` prints it."""

import json
import sys
from typing import Any

from cortex_contracts.envelope import BATCH_CONTENT_TYPE, MAX_BATCH, Envelope
from cortex_contracts.events import ALL_EVENTS, Event, UsageRecordedV1

BATCHED: tuple[type[Event], ...] = (UsageRecordedV1,)
"""Events that also come many to a message."""


def document() -> dict[str, Any]:
    """AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Cortex events",
            "version": "1",
            "description": "Lifecycle and usage events on NATS JetStream, CloudEvents 1.0 in structured JSON mode.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {event.SUBJECT: _channel(event) for event in ALL_EVENTS},
        "operations": {
            _key(event): {"action": "receive", "channel": {"$ref": f"#/channels/{event.SUBJECT}"}}
            for event in ALL_EVENTS
        },
        "components": {
            "messages": {event.type_name(): _message(event) for event in ALL_EVENTS}
            | {_batch_name(event): _batch(event) for event in BATCHED}
        },
    }


def _key(event: type[Event]) -> str:
    return "on" + "".join(part.capitalize() for part in event.SUBJECT.replace("_", ".").split("."))


def _channel(event: type[Event]) -> dict[str, Any]:
    names = (event.type_name(), _batch_name(event)) if event in BATCHED else (event.type_name(),)
    return {"address": event.SUBJECT, "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names}}


def _batch_name(event: type[Event]) -> str:
    return f"{event.type_name()}.batch"


def _batch(event: type[Event]) -> dict[str, Any]:
    return {
        "name": _batch_name(event),
        "contentType": BATCH_CONTENT_TYPE,
        "summary": "Several at once, told by the header `content-type`; ids and meaning are those of single events.",
        "payload": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_BATCH,
            "items": {"$ref": f"#/components/messages/{event.type_name()}/payload"},
        },
    }


def _message(event: type[Event]) -> dict[str, Any]:
    own_docstring = event.__dict__.get("__doc__") or ""
    return {
        "name": event.type_name(),
        "summary": own_docstring.strip().split("\n")[0],
        "payload": Envelope[event].model_json_schema(
            ref_template=f"#/components/messages/{event.type_name()}/payload/$defs/{{model}}"
        ),
    }


def render() -> str:
    """The document as it is committed in docs/api/asyncapi.json."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
