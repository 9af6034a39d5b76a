"""Keeps the bucket `gguf` and its observers up to date: both hear of a file when it changed, and only then."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.events import Event, GgufInspectedV1, GgufRejectedV1
from cortex_contracts.library import EntryState
from cortex_gguf_inspector.library.examine import Examined
from cortex_gguf_inspector.library.scan import Snapshot
from cortex_gguf_inspector.ports import DocumentStore, KnownDocuments, Observers
from cortex_kit.clock import next_version
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()
SHOWN_PATH = 512
REMEMBERED = 4096


class Catalog:
    """Writes documents and events. Event ids follow from their content, so that two instances cannot tell one thing twice."""

    def __init__(self, documents: DocumentStore, observers: Observers, known: KnownDocuments) -> None:
        self._documents = documents
        self._observers = observers
        self._known = known
        self._version = 0
        self._rejected: OrderedDict[str, tuple[str, str]] = OrderedDict()

    async def inspected(self, document: GgufDocumentV1, *, moved: bool = False) -> GgufDocumentV1:
        """Store and announce a document, unless the bucket holds it; returns it with its version.

        Args:
            moved: the path in the bucket is gone, so a new path counts as a change.
        """
        self._rejected.pop(document.path, None)
        known = self._known.items.get(document.identity)
        if known is not None and _same(known, document, with_path=moved):
            return document.model_copy(update={"aggregateversion": known.aggregateversion})
        self._version = next_version(max(self._version, known.aggregateversion if known else 0))
        document = document.model_copy(update={"aggregateversion": self._version})
        log.info("gguf_inspected", path=document.path, identity=document.identity, architecture=document.architecture)
        event = GgufInspectedV1(
            path=document.path,
            identity=document.identity,
            architecture=document.architecture,
            quantization=document.quantization,
            parameters=document.parameters,
        )
        try:  # the event first: when it fails, the next look finds no document and tries both again
            await self._publish(event, document.identity)
            await self._documents.put(document.identity, document)
        except TransientError as error:
            log.warning("gguf_document_not_stored", identity=document.identity, error=str(error))
        return document

    async def rejected(self, path: str, code: str, reason: str) -> None:
        """Announce a refusal, unless it was the last thing said of this path."""
        shown = path[:SHOWN_PATH].encode(errors="replace").decode()
        if self._rejected.get(shown) == (code, reason):
            return
        log.info("gguf_rejected", path=shown, code=code, reason=reason)
        event = GgufRejectedV1(path=shown, code=code, reason=reason)
        try:
            await self._publish(event, hashlib.sha256(shown.encode()).hexdigest())
        except TransientError as error:
            log.warning("event_not_published", subject=event.SUBJECT, error=str(error))
            return
        self._remember(shown, code, reason)

    async def vanished(self, identity: str) -> None:
        """Remove the document of a file that is gone."""
        log.info("gguf_vanished", identity=identity)
        try:
            await self._documents.delete(identity)
        except TransientError as error:
            log.warning("gguf_document_not_deleted", identity=identity, error=str(error))

    def assume_told(self, refusals: Mapping[str, tuple[str, str]]) -> None:
        """Another instance has announced these refusals."""
        for path, (code, reason) in refusals.items():
            self._remember(path[:SHOWN_PATH], code, reason)

    def _remember(self, path: str, code: str, reason: str) -> None:
        self._rejected[path] = (code, reason)
        self._rejected.move_to_end(path)
        while len(self._rejected) > REMEMBERED:
            self._rejected.popitem(last=False)

    async def _publish(self, event: Event, aggregate_id: str) -> None:
        event_id = hashlib.sha256(f"{event.SUBJECT} {event.model_dump_json()}".encode()).hexdigest()
        await self._observers.publish(event, aggregate_id=aggregate_id, event_id=event_id)


def _same(one: GgufDocumentV1, other: GgufDocumentV1, *, with_path: bool) -> bool:
    ignored = {"aggregateversion"} if with_path else {"aggregateversion", "path"}
    return one.model_dump(exclude=ignored) == other.model_dump(exclude=ignored)


class Reconciler:
    """Brings bucket and observers in line with what a scan has found. Remembers one scan back."""

    def __init__(self, catalog: Catalog, known: KnownDocuments) -> None:
        self._catalog = catalog
        self._known = known
        self._missing: set[str] = set()
        self._refused: dict[str, tuple[str, str]] = {}

    async def apply(self, snapshot: Snapshot) -> None:
        """For the instance that writes. Idempotent; what failed is tried again after the next scan."""
        wanted: dict[str, list[GgufDocumentV1]] = {}
        for one in snapshot.examined:
            if one.document is not None:
                wanted.setdefault(one.document.identity, []).append(one.document)
        known = self._known.items
        for identity, documents in wanted.items():
            stored = known.get(identity)
            at_its_place = [one for one in documents if stored is not None and one.path == stored.path]
            await self._catalog.inspected((at_its_place or documents)[0], moved=True)
        self._refused = refusals(snapshot.examined)
        for path, (code, reason) in self._refused.items():
            await self._catalog.rejected(path, code, reason)
        await self._remove_vanished(snapshot, set(wanted))

    def follow(self, snapshot: Snapshot) -> None:
        """For an instance that does not write: what it saw twice, the writer has had the time to tell."""
        found = refusals(snapshot.examined)
        self._catalog.assume_told({path: why for path, why in found.items() if self._refused.get(path) == why})
        self._refused = found
        self._missing = set()

    async def _remove_vanished(self, snapshot: Snapshot, wanted: set[str]) -> None:
        """Only what two whole scans have missed, and what was not stored meanwhile by an inspection."""
        if not snapshot.complete:
            self._missing = set()
            return
        began = (snapshot.scanned_at.timestamp() - snapshot.seconds) * 1e6
        known = self._known.items
        missing = {
            identity
            for identity, document in known.items()
            if identity not in wanted and document.aggregateversion < began
        }
        for identity in missing & self._missing:
            await self._catalog.vanished(identity)
        self._missing = missing


def refusals(found: tuple[Examined, ...]) -> dict[str, tuple[str, str]]:
    """Path -> code and reason of everything that is no model, or no whole one."""
    states = (EntryState.REJECTED, EntryState.INCOMPLETE)
    entries = [one.entry for one in found if one.entry.state in states]
    return {entry.path: (entry.code or "unknown", entry.reason) for entry in entries}
