"""The KV buckets, the event stream, provisioning and request-reply over NATS."""

import asyncio
import random
from collections.abc import Mapping
from typing import cast

from nats.errors import Error as NatsError
from pydantic import ValidationError

from cortex_contracts import subjects
from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.documents import Document, KeyDocumentV1, ModelDocumentV1
from cortex_contracts.rpc import InspectRequestV1, InspectResultV1, LogsRequestV1, LogsResultV1
from cortex_contracts.streams import KEYS, MODELS
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_kit.events import EventPublisher, Origin, new_envelope
from cortex_kit.kv import KVStore
from cortex_kit.logging import get_logger
from cortex_kit.provision import provision
from cortex_registry.domain.outbox import Aggregate, OutboxLine
from cortex_registry.errors import UnavailableError
from cortex_registry.settings import Settings

log = get_logger()
RETRY_MAX_S = 10.0


class NatsMirror:
    """Mirror: the buckets `models` and `keys`, of which the relay is the only writer."""

    def __init__(self, bus: Bus) -> None:
        self._models: KVStore[ModelDocumentV1] = KVStore(bus, MODELS)
        self._keys: KVStore[KeyDocumentV1] = KVStore(bus, KEYS)

    async def stored(self, aggregate: Aggregate) -> Mapping[str, Document | None]:
        if aggregate is Aggregate.MODEL:
            return {key: _parse(ModelDocumentV1, value) for key, value in (await self._models.values()).items()}
        return {key: _parse(KeyDocumentV1, value) for key, value in (await self._keys.values()).items()}

    async def put(self, aggregate: Aggregate, key: str, document: Document) -> None:
        if aggregate is Aggregate.MODEL:
            await self._models.put(key, cast(ModelDocumentV1, document))
        else:
            await self._keys.put(key, cast(KeyDocumentV1, document))

    async def delete(self, aggregate: Aggregate, key: str) -> None:
        await (self._models if aggregate is Aggregate.MODEL else self._keys).delete(key)


def _parse(kind: type[ModelDocumentV1] | type[KeyDocumentV1], value: bytes) -> Document | None:
    try:
        return kind.model_validate_json(value)
    except ValidationError:
        return None


class NatsEvents:
    """EventSink: publishes outbox lines with their own id and time, so that a repetition is the same event."""

    def __init__(self, bus: Bus, *, source: str) -> None:
        self._publisher = EventPublisher(bus, source=source)
        self._source = source

    async def publish(self, line: OutboxLine) -> None:
        envelope = new_envelope(
            line.event,
            source=self._source,
            aggregate_id=line.aggregate_id,
            now=line.created_at,
            version=line.version,
            event_id=line.event_id,
            origin=Origin(line.correlation_id, line.causation_id),
        )
        payload = envelope.model_dump_json(exclude_none=True).encode()
        await self._publisher.publish_raw(line.event.SUBJECT, payload, line.event_id)


class Provisioner:
    """Makes sure of every stream, bucket and durable at the start and after each reconnect. Implements Provisioning."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus = bus
        self._settings = settings
        self._generation = 0
        self._sure = False
        self._wanted = asyncio.Event()
        self._wanted.set()
        bus.on_reconnect(self._on_reconnect)

    @property
    def generation(self) -> int:
        return self._generation

    def readiness(self) -> str | None:
        """Why streams and buckets are not known to exist, or None."""
        return None if self._sure else "streams and buckets are not provisioned yet"

    async def run(self) -> None:
        """A task of the service."""
        attempt = 0
        while True:
            await self._wanted.wait()
            await self._bus.wait_connected()
            self._wanted.clear()
            try:
                await self._provision()
                attempt = 0
            except (NatsError, OSError, TimeoutError, TransientError) as error:
                self._wanted.set()
                attempt += 1
                log.warning("provisioning_failed", error=repr(error), attempt=attempt)
                await asyncio.sleep(min(RETRY_MAX_S, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))

    async def _provision(self) -> None:
        settings = self._settings
        await provision(
            self._bus.js,
            events_max_age_s=settings.events_max_age_s,
            events_max_bytes=settings.events_max_bytes,
            replicas=settings.nats_replicas,
        )
        self._generation += 1
        # Unless the connection was lost meanwhile: then what was made sure of may be gone again.
        self._sure = not self._wanted.is_set()

    async def _on_reconnect(self) -> None:
        self._sure = False
        self._wanted.set()


class NatsInspector:
    """Inspector over request-reply."""

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s

    async def inspect(self, path: str) -> InspectResultV1:
        try:
            return await self._bus.request(
                subjects.RPC_GGUF_INSPECT, InspectRequestV1(path=path), InspectResultV1, timeout=self._timeout_s
            )
        except TransientError as error:
            message = "The GGUF inspector does not answer, so the file cannot be checked. Try again in a moment."
            raise UnavailableError("inspector_unavailable", message) from error


class NatsEngineLogs:
    """EngineLogs over request-reply."""

    def __init__(self, bus: Bus, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s

    async def tail(self, node: str, model_id: ModelId, ordinal: int, lines: int) -> LogsResultV1:
        request = LogsRequestV1(model_id=model_id, ordinal=ordinal, tail=lines)
        try:
            return await self._bus.request(
                subjects.rpc_logs(NodeId(node)), request, LogsResultV1, timeout=self._timeout_s
            )
        except TransientError as error:
            message = f"The orchestrator of node {node} does not answer. Try again in a moment."
            raise UnavailableError("orchestrator_unavailable", message) from error
