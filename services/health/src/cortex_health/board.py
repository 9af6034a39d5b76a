"""Brings the bucket and the stream to what was concluded, however long NATS is away."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.events import Event
from cortex_health.domain import same_verdict
from cortex_health.metrics import UNWRITTEN
from cortex_health.ports import EventSink, VerdictStore
from cortex_kit.clock import Clock, next_version
from cortex_kit.errors import TransientError
from cortex_kit.events import Origin, new_envelope
from cortex_kit.logging import get_logger

log = get_logger()
RETRY_S = 0.5
MAX_WAITING_EVENTS = 1_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    subject: str
    payload: bytes
    event_id: str


class VerdictBoard:
    """Wanted documents on one side, what is known to be stored on the other; one task makes them equal.

    `show`, `clear` and `announce` never wait. Documents are level-triggered: only the last one counts. Events are kept in
    order and published once each; when a thousand wait, the oldest is dropped.
    """

    def __init__(self, store: VerdictStore, events: EventSink, clock: Clock, *, source: str) -> None:
        self._store = store
        self._events = events
        self._clock = clock
        self._source = source
        self._wanted: dict[str, VerdictDocumentV1] = {}
        self._stored: dict[str, VerdictDocumentV1] = {}
        self._unwanted: set[str] = set()
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._version = 0

    def adopt(self, stored: Mapping[str, VerdictDocumentV1]) -> None:
        """Begin with what the bucket holds, so that equal documents are not written again."""
        self._stored = dict(stored)
        self._version = max((item.aggregateversion for item in stored.values()), default=self._version)

    def show(self, document: VerdictDocumentV1) -> None:
        """The bucket shall hold this document (its version is set when it is written)."""
        self._wanted[document.replica_id] = document
        self._unwanted.discard(document.replica_id)
        self._changed.set()

    def clear(self, replica_id: str) -> None:
        """The bucket shall hold nothing about this replica."""
        self._wanted.pop(replica_id, None)
        self._unwanted.add(replica_id)
        self._changed.set()

    def announce(self, event: Event, aggregate_id: str, origin: Origin | None = None) -> str:
        """Publish an event after the documents that are waiting now; returns its id."""
        envelope = new_envelope(
            event, source=self._source, aggregate_id=aggregate_id, now=self._clock.now(), origin=origin
        )
        payload = envelope.model_dump_json(exclude_none=True).encode()
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            dropped = self._waiting.popleft()
            log.warning("event_dropped", subject=dropped.subject, event_id=dropped.event_id)
        self._waiting.append(_Waiting(event.SUBJECT, payload, envelope.id))
        self._changed.set()
        return envelope.id

    async def rewrite_all(self) -> None:
        """Write every document again: the store may have been emptied."""
        self._stored = {}
        self._changed.set()

    def forget(self) -> None:
        """Want nothing and remove nothing: another instance writes now."""
        self._wanted, self._stored = {}, {}
        self._unwanted.clear()
        self._waiting.clear()

    async def run(self) -> None:
        """Write until cancelled; retries while NATS is away."""
        failing = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write_documents()
                await self._publish_events()
                failing = False
            except TransientError as error:
                if not failing:
                    log.warning("verdicts_wait_for_nats", error=str(error))
                failing = True
                await asyncio.sleep(RETRY_S)
                self._changed.set()
            UNWRITTEN.set(len(self._pending()) + len(self._unwanted) + len(self._waiting))

    def _pending(self) -> list[VerdictDocumentV1]:
        return [item for key, item in self._wanted.items() if not same_verdict(item, self._stored.get(key))]

    async def _write_documents(self) -> None:
        for document in self._pending():
            self._version = next_version(self._version)
            versioned = document.model_copy(update={"aggregateversion": self._version})
            await self._store.put(document.replica_id, versioned)
            self._stored[document.replica_id] = versioned
        for key in tuple(self._unwanted):
            await self._store.delete(key)
            self._stored.pop(key, None)
            self._unwanted.discard(key)

    async def _publish_events(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            await self._events.publish_raw(first.subject, first.payload, first.event_id)
            if self._waiting and self._waiting[0] is first:
                self._waiting.popleft()
