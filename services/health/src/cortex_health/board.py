"""Brings the bucket and the stream to what was concluded, however long NATS is away."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.events import Event
from cortex_health.domain.verdicts import same_verdict
from cortex_health.metrics import CONFLICTS, UNWRITTEN
from cortex_health.ports import ConflictError, EventSink, VerdictStore
from cortex_kit.clock import Clock, next_version
from cortex_kit.errors import TransientError
from cortex_kit.events import Origin, new_envelope
from cortex_kit.logging import get_logger

log = get_logger()
RETRY_S = 0.5
MAX_WAITING_EVENTS = 1_000

OnConflict = Callable[[str, VerdictDocumentV1], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    aggregate_id: str
    subject: str
    payload: bytes
    event_id: str


@dataclass(slots=True)
class _Known:
    """What the bucket holds as far as we know. `revision` is None until it was asked for."""

    document: VerdictDocumentV1 | None
    revision: int | None = None
    rewrite: bool = False


class VerdictBoard:
    """Wanted documents on one side, what is known to be stored on the other; one task makes them equal.

    `show`, `clear` and `announce` never wait. Documents are level-triggered: only the last one counts. Events are kept in
    order and published once each; when a thousand wait, the oldest is dropped.

    A document replaces the very one that this member began with or wrote last. When somebody else has written since,
    ours and its events are void, `on_conflict` is told, and what we say next is said on top of the other's.
    """

    def __init__(self, store: VerdictStore, events: EventSink, clock: Clock, *, source: str, member: str = "") -> None:
        self._store = store
        self._events = events
        self._clock = clock
        self._source = source
        self._member = member or source
        self._wanted: dict[str, VerdictDocumentV1] = {}
        self._known: dict[str, _Known] = {}
        self._unwanted: set[str] = set()
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._version = 0
        self._on_conflict: OnConflict | None = None

    def on_conflict(self, callback: OnConflict) -> None:
        """Call back with what another member has stored about a replica that we are about to write of."""
        self._on_conflict = callback

    def begin(self, replica_id: str, stored: VerdictDocumentV1 | None) -> None:
        """From now on this member writes of this replica; `stored` is what it takes over."""
        self._known[replica_id] = _Known(stored)

    def forget(self, replica_id: str) -> None:
        """Want nothing and remove nothing: another member writes of it now, or nobody."""
        self._wanted.pop(replica_id, None)
        self._known.pop(replica_id, None)
        self._unwanted.discard(replica_id)
        self._withdraw(replica_id)

    def show(self, document: VerdictDocumentV1) -> None:
        """The bucket shall hold this document (its version and author are set when it is written)."""
        self._wanted[document.replica_id] = document
        self._unwanted.discard(document.replica_id)
        self._changed.set()

    def clear(self, replica_id: str) -> None:
        """The bucket shall hold nothing about this replica."""
        self._wanted.pop(replica_id, None)
        self._known.pop(replica_id, None)
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
        self._waiting.append(_Waiting(aggregate_id, event.SUBJECT, payload, envelope.id))
        self._changed.set()
        return envelope.id

    async def rewrite_all(self) -> None:
        """Compare every document with the store again: it may have been emptied."""
        for known in self._known.values():
            known.revision, known.rewrite = None, True
        self._changed.set()

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
        return [item for key, item in self._wanted.items() if self._differs(item, self._known.get(key))]

    @staticmethod
    def _differs(wanted: VerdictDocumentV1, known: _Known | None) -> bool:
        return known is None or known.rewrite or not same_verdict(wanted, known.document)

    async def _write_documents(self) -> None:
        for document in self._pending():
            await self._write(document)
        for key in tuple(self._unwanted):
            await self._store.delete(key)
            if key in self._known:
                self._known[key] = _Known(None)
            self._unwanted.discard(key)

    async def _write(self, document: VerdictDocumentV1) -> None:
        key = document.replica_id
        if self._wanted.get(key) is not document:
            return
        known = self._known.setdefault(key, _Known(None, revision=0))
        if known.revision is None and not await self._agrees(key, known):
            return
        if not self._differs(document, known) or self._wanted.get(key) is not document:
            return  # it is there already, or something newer is wanted, which follows
        before = known.document.aggregateversion if known.document is not None else 0
        self._version = next_version(max(self._version, before))
        versioned = document.model_copy(update={"aggregateversion": self._version, "prober": self._member})
        try:
            revision = await self._store.put(key, versioned, known.revision or 0)
        except TransientError:
            known.revision = None  # stored or not: the next attempt looks first
            raise
        except ConflictError:
            await self._agrees(key, known)
            self._changed.set()
            return
        self._known[key] = _Known(versioned, revision)

    async def _agrees(self, key: str, known: _Known) -> bool:
        """Ask what is stored. False: another member wrote, and our conclusion is void."""
        stored, revision = await self._store.get(key)
        known.revision, known.rewrite = revision, False
        mine = stored is not None and stored.prober == self._member
        unchanged = stored is None or mine or stored == known.document
        known.document = stored
        if unchanged or stored is None or self._known.get(key) is not known:
            return unchanged
        CONFLICTS.inc()
        log.warning("verdict_contested", replica_id=key, prober=stored.prober, verdict=stored.verdict)
        self._wanted.pop(key, None)
        self._withdraw(key)
        if self._on_conflict is not None:
            self._on_conflict(key, stored)
        return False

    def _withdraw(self, aggregate_id: str) -> None:
        self._waiting = deque(item for item in self._waiting if item.aggregate_id != aggregate_id)

    async def _publish_events(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            await self._events.publish_raw(first.subject, first.payload, first.event_id)
            if self._waiting and self._waiting[0] is first:
                self._waiting.popleft()
