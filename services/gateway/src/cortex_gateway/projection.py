"""The gateway's view of the world: the routing table and the key ring, swapped whole when a bucket changes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from cortex_contracts.documents import Document, KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_gateway import metrics
from cortex_gateway.domain.auth import KeyRing, build_key_ring
from cortex_gateway.domain.routing import Keys, RoutingTable, build_table
from cortex_gateway.ports import BucketSnapshot, Snapshot, SnapshotStore
from cortex_kit.clock import Clock
from cortex_kit.kv import Change, KVView
from cortex_kit.logging import get_logger

log = get_logger()

_Encoded = dict[str, tuple[Document, bytes]]
CONFIRM_EVERY_S = 60.0
"""A snapshot that is still true says so this often."""


@dataclass(frozen=True, slots=True)
class Views:
    """The four buckets that the gateway reads."""

    models: KVView[ModelDocumentV1]
    keys: KVView[KeyDocumentV1]
    replicas: KVView[ReplicaDocumentV1]
    verdicts: KVView[VerdictDocumentV1]

    def by_name(self) -> Mapping[str, tuple[KVView[Any], type[Document]]]:
        """Each view with the class of its documents."""
        return {
            "models": (self.models, ModelDocumentV1),
            "keys": (self.keys, KeyDocumentV1),
            "replicas": (self.replicas, ReplicaDocumentV1),
            "verdicts": (self.verdicts, VerdictDocumentV1),
        }


@dataclass(frozen=True, slots=True)
class SnapshotRules:
    """Args: how long NATS is waited for before the file is used; how old the keys of a file may be; how long a change
    waits for others before the file is written again, and how long one that only tells of a replica's load."""

    wait_s: float = 0.3
    max_age_s: float = 86_400.0
    settle_s: float = 0.5
    load_settle_s: float = 5.0


class Projection:
    """Holds the current table and ring; read them freely. Several changes in one turn of the loop make one swap."""

    def __init__(
        self,
        views: Views,
        keys: Keys,
        clock: Clock,
        store: SnapshotStore | None = None,
        rules: SnapshotRules | None = None,
        connected: Callable[[], bool] = lambda: True,
    ) -> None:
        self.table = RoutingTable()
        self.keys: KeyRing = {}
        self.synced = False
        self._views = views
        self._engine_keys = keys
        self._clock = clock
        self._store = store
        self._rules = rules or SnapshotRules()
        self._connected = connected
        self._live = False
        """All four buckets were read by this process."""
        self._confirmed_at: datetime | None = None
        """When the projection was last known to be true."""
        self._keys_until: float | None = None
        """Keys of a snapshot are believed until then (monotonic)."""
        self._save_at = 0.0
        self._unsaved = False
        self._sooner = asyncio.Event()
        self._encoded: dict[str, _Encoded] = {}
        self._on_swap: Callable[[RoutingTable], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._table_dirty = False
        self._keys_dirty = False
        views.keys.on_change(self._on_key_change)
        for view in (views.models, views.replicas, views.verdicts):
            view.on_change(self._on_route_change)

    async def run(self) -> None:
        """Build the first table once all four buckets were read, or from the snapshot when NATS is away; then stay."""
        try:
            async with asyncio.timeout(self._rules.wait_s if self._store is not None else None):
                await self._wait_views()
        except TimeoutError:
            await self._load()
        await self._wait_views()
        self._live = True
        self._keys_until = None
        self._confirmed_at = self._clock.now()
        self._swap_all()
        log.info("projection_synced", models=len(self.table.routes), keys=len(self.keys))
        await self._keep_saved()

    def readiness(self) -> str | None:
        """NATS going away later does not make the gateway unready: it serves from what it has."""
        return None if self.synced else "the buckets models, keys, replicas and verdicts have not all been read yet"

    def details(self) -> Mapping[str, object]:
        """Where the projection comes from and how old it may be, for those who ask whether the gateway is ready."""
        source = "live" if self._live else "snapshot" if self.synced else "none"
        return {"source": source, "age_s": round(self.age_s(), 1), "keys_believed": not self.keys_outdated()}

    def age_s(self) -> float:
        """Since the projection was last known to be true; 0 while it is."""
        if self._live and self._connected():
            self._confirmed_at = self._clock.now()
        if self._confirmed_at is None:
            return 0.0
        return max(0.0, (self._clock.now() - self._confirmed_at).total_seconds())

    def keys_outdated(self) -> bool:
        """True when the keys come from a snapshot that is too old to be believed."""
        return self._keys_until is not None and self._clock.monotonic() >= self._keys_until

    def on_swap(self, callback: Callable[[RoutingTable], None]) -> None:
        """Call back with each new table."""
        self._on_swap = callback

    async def wait_change(self, timeout_s: float) -> None:
        """Return when the table was swapped, or after `timeout_s`."""
        changed = self._changed
        await asyncio.wait([changed], timeout=timeout_s)

    async def save(self) -> None:
        """Write the snapshot now, unless nothing has been read yet."""
        self._save_at = self._loop.time() + CONFIRM_EVERY_S
        self._unsaved = False
        if self._store is None or not self._live:
            return
        self.age_s()
        confirmed_at = self._confirmed_at or self._clock.now()
        present = {name: (view.sequence, view.items) for name, (view, _) in self._views.by_name().items()}
        try:
            await asyncio.to_thread(self._write, self._store, confirmed_at, present)
        except OSError as error:
            metrics.SNAPSHOTS.labels("failed").inc()
            log.warning("projection_snapshot_not_saved", error=str(error))
        else:
            metrics.SNAPSHOTS.labels("saved").inc()

    async def _wait_views(self) -> None:
        for view, _ in self._views.by_name().values():
            await view.wait_synced()

    async def _load(self) -> None:
        snapshot = None if self._store is None else await asyncio.to_thread(self._store.load)
        if snapshot is None:
            return
        views = self._views.by_name()
        if not views.keys() <= snapshot.buckets.keys():
            log.warning("projection_snapshot_ignored", reason="it does not hold all buckets")
            return
        for name, (view, document) in views.items():
            bucket = snapshot.buckets[name]
            view.preload(_parse(name, document, bucket), bucket.sequence)
        self._confirmed_at = snapshot.saved_at
        self._keys_until = self._clock.monotonic() + self._rules.max_age_s - self.age_s()
        self._swap_all()
        metrics.SNAPSHOTS.labels("loaded").inc()
        log.warning(
            "projection_from_snapshot",
            age_s=round(self.age_s(), 1),
            models=len(self.table.routes),
            keys=len(self.keys),
            keys_believed=not self.keys_outdated(),
        )

    async def _keep_saved(self) -> None:
        """Save what changed, a little later, be NATS there or not, and now and then that nothing did."""
        await self.save()
        while True:
            self._sooner.clear()
            try:
                async with asyncio.timeout_at(self._save_at):
                    await self._sooner.wait()
            except TimeoutError:
                if self._unsaved or self._connected():
                    await self.save()
                else:
                    self._save_at += CONFIRM_EVERY_S

    def _save_within(self, seconds: float) -> None:
        self._unsaved = True
        at = self._loop.time() + seconds
        if at < self._save_at:
            self._save_at = at
            self._sooner.set()

    def _write(
        self, store: SnapshotStore, at: datetime, present: Mapping[str, tuple[int, Mapping[str, Document]]]
    ) -> None:
        """In a thread: documents that are as they were are not encoded again."""
        encoded: dict[str, _Encoded] = {}
        for name, (_, items) in present.items():
            known = self._encoded.get(name, {})
            encoded[name] = {
                key: known[key] if key in known and known[key][0] is document else (document, _stored(document))
                for key, document in items.items()
            }
        self._encoded = encoded
        buckets = {
            name: BucketSnapshot(sequence, {key: value for key, (_, value) in encoded[name].items()})
            for name, (sequence, _) in present.items()
        }
        store.save(Snapshot(at, buckets))

    def _on_key_change(self, _change: Change[KeyDocumentV1]) -> None:
        self._save_within(self._rules.settle_s)
        if not self._keys_dirty:
            self._keys_dirty = True
            self._loop.call_soon(self._swap_keys)

    def _on_route_change(
        self, change: Change[ModelDocumentV1] | Change[ReplicaDocumentV1] | Change[VerdictDocumentV1]
    ) -> None:
        self._save_within(self._rules.load_settle_s if _tells_of_load(change.old, change.new) else self._rules.settle_s)
        if not self._table_dirty:
            self._table_dirty = True
            self._loop.call_soon(self._swap_table)

    def _swap_all(self) -> None:
        self._swap_keys()
        self._swap_table()
        self.synced = True

    def _swap_keys(self) -> None:
        self._keys_dirty = False
        self.keys = build_key_ring(self._views.keys.items)

    def _swap_table(self) -> None:
        self._table_dirty = False
        views = self._views
        self.table = build_table(views.models.items, views.replicas.items, views.verdicts.items, self._engine_keys)
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)
        if self._on_swap is not None:
            self._on_swap(self.table)


def _tells_of_load(old: Document | None, new: Document | None) -> bool:
    """Whether a replica may be asked as before."""
    if not (isinstance(old, VerdictDocumentV1) and isinstance(new, VerdictDocumentV1)):
        return False
    return (old.verdict, old.endpoint, old.spec_hash) == (new.verdict, new.endpoint, new.spec_hash)


def _stored(document: Document) -> bytes:
    if isinstance(document, ModelDocumentV1):
        document = document.model_copy(update={"extra_env": {}, "hf_token_sealed": None})
    return document.model_dump_json().encode()


def _parse(name: str, document: type[Document], bucket: BucketSnapshot) -> dict[str, Any]:
    """The documents that can be read."""
    items: dict[str, Any] = {}
    for key, value in bucket.items.items():
        try:
            items[key] = document.model_validate_json(value)
        except ValidationError as error:
            log.warning("snapshot_document_invalid", bucket=name, key=key, errors=error.error_count())
    return items
