"""What the orchestrator tells the world: one document a replica, and events in order. Nobody waits for NATS here."""

import asyncio
from collections import Counter as Tally
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.documents import PullProgress, ReplicaDocumentV1
from cortex_contracts.enums import ReplicaState, RuntimeKind
from cortex_contracts.events import Event
from cortex_kit.clock import Clock, next_version
from cortex_kit.errors import TransientError
from cortex_kit.events import Origin
from cortex_kit.ids import uuid7
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.observed import Identity
from cortex_orchestrator.handlers.causes import Causes
from cortex_orchestrator.metrics import DROPPED_EVENTS, REPLICAS, UNSENT
from cortex_orchestrator.ports import DocumentStore, EventSink

log = get_logger()

MAX_UNSENT_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How a replica stands; becomes a document."""

    identity: Identity
    state: ReplicaState
    reason: str
    endpoint: str | None = None
    container: str | None = None
    exit_code: int | None = None
    restarts: int = 0
    next_attempt_at: datetime | None = None
    pull: PullProgress | None = None
    gpus: tuple[int, ...] = ()
    diagnosis: Diagnosis | None = None
    warnings: tuple[str, ...] = ()
    load_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the replicas of this orchestrator run."""

    node: NodeId
    runtime: RuntimeKind


@dataclass(frozen=True, slots=True)
class _Unsent:
    event: Event
    replica_id: ReplicaId
    event_id: str
    version: int
    origin: Origin


class Reporter:
    """Single writer of this node's replica documents and container events.

    `report`, `withdraw` and `emit` return at once; `run` sends what is due, the documents first, and sends it again
    until NATS has confirmed it.
    """

    def __init__(
        self,
        store: DocumentStore[ReplicaDocumentV1],
        sink: EventSink,
        clock: Clock,
        *,
        place: Place,
        causes: Causes | None = None,
        retry_s: float = 1.0,
    ) -> None:
        self._causes = causes or Causes()
        self._store = store
        self._sink = sink
        self._clock = clock
        self._place = place
        self._retry_s = retry_s
        self._documents: dict[ReplicaId, ReplicaDocumentV1] = {}
        self._dirty: set[ReplicaId] = set()
        self._events: deque[_Unsent] = deque()
        self._version = 0
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def documents(self) -> Mapping[ReplicaId, ReplicaDocumentV1]:
        """What was reported last, whether or not it has been stored yet."""
        return self._documents

    def report(self, standing: Standing) -> None:
        """Make this the replica's document; nothing happens when it says what was said already."""
        identity = standing.identity
        old = self._documents.get(identity.replica_id)
        same = old is not None and old.state is standing.state and old.spec_hash == identity.spec_hash
        document = ReplicaDocumentV1(
            id=identity.replica_id,
            model_id=identity.model_id,
            ordinal=identity.ordinal,
            engine_type=identity.engine_type,
            node=self._place.node,
            runtime=self._place.runtime,
            spec_hash=identity.spec_hash,
            state=standing.state,
            reason=standing.reason,
            since=old.since if old is not None and same else self._clock.now(),
            endpoint=standing.endpoint,
            container=standing.container,
            exit_code=standing.exit_code,
            restarts=standing.restarts,
            next_attempt_at=standing.next_attempt_at,
            pull=standing.pull,
            gpus=standing.gpus,
            diagnosis=standing.diagnosis,
            warnings=standing.warnings,
            load_seconds=standing.load_seconds,
            correlation_id=self._causes.origin(identity.model_id, identity.replica_id).correlation_id,
            causation_id=self._causes.last_event(identity.model_id, identity.replica_id),
            aggregateversion=old.aggregateversion if old is not None else 0,
        )
        if document != old:
            self._put(document)

    def withdraw(self, replica_id: ReplicaId) -> None:
        """Remove the replica's document."""
        document = self._documents.pop(replica_id, None)
        if document is not None:
            self._causes.gone(document.model_id, replica_id)
        self._mark(replica_id)

    def trouble(self, text: str | None) -> None:
        """Say in every document why nothing is observed at present; None: it is again."""
        for document in tuple(self._documents.values()):
            if document.trouble != text:
                self._put(document.model_copy(update={"trouble": text}))

    def loaded(self, replica_id: ReplicaId, spec_hash: str, load_seconds: float) -> None:
        """Add to the replica's document how long this specification took from start to healthy."""
        document = self._documents.get(replica_id)
        is_about = document is not None and document.spec_hash == spec_hash
        if document is not None and is_about and document.load_seconds is None:
            self._put(document.model_copy(update={"load_seconds": load_seconds}))

    def emit(self, event: Event, replica_id: ReplicaId, model_id: ModelId) -> None:
        """Publish an event about a replica, in the order of the calls, once NATS is there."""
        if len(self._events) >= MAX_UNSENT_EVENTS:
            self._events.popleft()
            DROPPED_EVENTS.inc()
        origin, event_id = self._causes.origin(model_id, replica_id), uuid7()
        self._causes.happened(model_id, replica_id, event_id)
        document = self._documents.get(replica_id)
        if document is not None:
            causes = {"correlation_id": origin.correlation_id, "causation_id": event_id}
            self._put(document.model_copy(update=causes))
        version = self._documents[replica_id].aggregateversion if document is not None else 0
        self._events.append(_Unsent(event, replica_id, event_id, version, origin))
        self._wake()

    def rewrite_all(self) -> None:
        """Write every document again, with a higher version: the store may have been wiped."""
        for document in tuple(self._documents.values()):
            self._put(document)

    def clear(self) -> None:
        """Forget all documents without touching the store: they are somebody else's now."""
        self._documents.clear()
        self._dirty.clear()
        self._causes.clear()
        self._gauge()

    async def flushed(self, timeout: float) -> bool:
        """Wait until everything is stored, at most `timeout` seconds; False when NATS is away."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Task: send what is due, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._send()
            except TransientError as error:
                log.debug("report_delayed", error=str(error))
                self._due.set()
                await asyncio.sleep(self._retry_s)

    async def _send(self) -> None:
        while self._dirty or self._events:
            if self._dirty:
                await self._send_document(next(iter(self._dirty)))
            else:
                await self._send_event()
            self._gauge()
        self._idle.set()

    async def _send_document(self, replica_id: ReplicaId) -> None:
        document = self._documents.get(replica_id)
        if document is None:
            await self._store.delete(replica_id)
        else:
            await self._store.put(replica_id, document)
        if self._documents.get(replica_id) is document:
            self._dirty.discard(replica_id)

    async def _send_event(self) -> None:
        unsent = self._events[0]
        await self._sink.publish(
            unsent.event,
            aggregate_id=unsent.replica_id,
            version=unsent.version,
            event_id=unsent.event_id,
            origin=unsent.origin,
        )
        if self._events and self._events[0] is unsent:
            self._events.popleft()

    def _put(self, document: ReplicaDocumentV1) -> None:
        self._version = next_version(self._version)
        self._documents[document.id] = document.model_copy(update={"aggregateversion": self._version})
        self._mark(document.id)

    def _mark(self, replica_id: ReplicaId) -> None:
        self._dirty.add(replica_id)
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._due.set()
        self._gauge()

    def _gauge(self) -> None:
        UNSENT.labels("documents").set(len(self._dirty))
        UNSENT.labels("events").set(len(self._events))
        tally = Tally(document.state for document in self._documents.values())
        for state in ReplicaState:
            REPLICAS.labels(state.value).set(tally[state])
