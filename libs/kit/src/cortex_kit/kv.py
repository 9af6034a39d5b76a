"""KV buckets: a live, gap-checked projection for readers, and a store for the one writer."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from cortex_contracts.documents import Document
from cortex_contracts.streams import BucketSpec
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()
DocumentT = TypeVar("DocumentT", bound=Document)
ResultT = TypeVar("ResultT")

GAP_CHECK_S = 60.0
BACKOFF_MAX_S = 30.0
PUT_TIMEOUT_S = 5.0
SNAPSHOT_TIMEOUT_S = 30.0
STRAGGLER_S = 1.0
SETTLE_S = 3.0
"""How long the old projection stands after the store went back to a lower sequence: its writers refill it meanwhile."""

REWATCHES = Counter("cortex_kv_rewatches_total", "KV watches opened, by bucket and reason", ["bucket", "reason"])
INVALID = Counter("cortex_kv_invalid_documents_total", "KV values that could not be read", ["bucket"])
ITEMS = Gauge("cortex_kv_items", "Documents in the projection", ["bucket"])


@dataclass(frozen=True, slots=True)
class Change(Generic[DocumentT]):
    """One key moved from `old` to `new`; None is absence.

    `live` tells a write that was seen happening from a difference between two snapshots: a key that is missing from a
    snapshot may have been lost with its store, one whose deletion was seen was deleted by its writer.
    """

    key: str
    old: DocumentT | None
    new: DocumentT | None
    live: bool = True


class KVView(Generic[DocumentT]):
    """A read-only projection of a bucket.

    A whole snapshot is staged and swapped in at once, then live updates follow. While NATS is away the last projection
    stays. After every reconnect, and when the bucket's sequence shows a gap, the watch is opened anew: a watch that
    merely survives a restart of the server stays deaf for many seconds, and misses updates for ever after a wipe.
    """

    def __init__(self, bus: Bus, bucket: BucketSpec, document: type[DocumentT]) -> None:
        self._bus = bus
        self._bucket = bucket
        self._document = document
        self._items: dict[str, DocumentT] = {}
        self._callbacks: list[Callable[[Change[DocumentT]], None]] = []
        self._synced = asyncio.Event()
        self._rewatch = asyncio.Event()
        self._last_sequence = 0
        self._settling = False
        bus.on_reconnect(self._on_reconnect)

    @property
    def items(self) -> Mapping[str, DocumentT]:
        """The present projection; never mutated, swapped whole on every change."""
        return MappingProxyType(self._items)

    @property
    def synced(self) -> bool:
        """True once a whole snapshot was seen; stays true while NATS is away."""
        return self._synced.is_set()

    @property
    def sequence(self) -> int:
        """The bucket's last sequence that is part of the projection."""
        return self._last_sequence

    def preload(self, items: Mapping[str, DocumentT], sequence: int) -> None:
        """Begin with what was known before, until a snapshot is seen; nothing happens when one was. Not a change:
        nobody is called back. What the snapshot lacks is told as changes then."""
        if not self.synced:
            self._swap(dict(items))
            self._last_sequence = sequence

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def on_change(self, callback: Callable[[Change[DocumentT]], None]) -> None:
        """Call back per changed key, synchronously, after `items` was swapped."""
        self._callbacks.append(callback)

    def readiness(self) -> str | None:
        return None if self.synced else f"bucket {self._bucket.name} has not been read yet"

    async def run(self) -> None:
        """Follow the bucket until cancelled."""
        attempt, reason = 0, "start"
        while True:
            await self._bus.wait_provisioned(buckets=[self._bucket])
            self._rewatch.clear()
            REWATCHES.labels(self._bucket.name, reason).inc()
            try:
                reason = await self._follow()
                attempt = 0
            except (NatsError, OSError, TransientError, TimeoutError) as error:
                reason, attempt = "error", attempt + 1
                log.warning("kv_watch_failed", bucket=self._bucket.name, error=repr(error))
                await asyncio.sleep(min(BACKOFF_MAX_S, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))

    async def _on_reconnect(self) -> None:
        self._rewatch.set()

    async def _follow(self) -> str:
        """Watch until there is a reason to open another watch; returns it."""
        kv = await self._bus.js.key_value(self._bucket.name)
        async with asyncio.timeout(10):
            expected = await _count(self._bus, self._bucket)
            watcher = await kv.watchall()
        try:
            if await self._load_snapshot(watcher, expected):
                return await self._apply_live(watcher)
        finally:
            await _stop(watcher)
        await asyncio.sleep(SETTLE_S)
        return "replaced"

    async def _load_snapshot(self, watcher: KeyValue.KeyWatcher, expected: int) -> bool:
        """Swap a snapshot in; False when the store was replaced a moment ago and is given time to be filled again."""
        staged: dict[str, DocumentT] = {}
        sequence = 0
        for entry in await _snapshot(watcher, expected):
            sequence = max(sequence, entry.revision or 0)
            if entry.operation is not None:
                staged.pop(entry.key, None)
            elif (document := self._parse(entry)) is not None:
                staged[entry.key] = document
        self._settling = sequence < self._last_sequence and not self._settling
        if self._settling:
            log.warning("kv_store_replaced", bucket=self._bucket.name, sequence=sequence, was=self._last_sequence)
            return False
        self._last_sequence = sequence
        old = self._items
        self._swap(staged)
        self._synced.set()
        for key in old.keys() | staged.keys():
            if old.get(key) != staged.get(key):
                self._notify(Change(key, old.get(key), staged.get(key), live=False))
        return True

    async def _apply_live(self, watcher: KeyValue.KeyWatcher) -> str:
        loop = asyncio.get_running_loop()
        rewatch = asyncio.ensure_future(self._rewatch.wait())
        next_check = loop.time() + GAP_CHECK_S
        update: asyncio.Future[KeyValue.Entry | None] | None = None
        try:
            while True:
                update = update or asyncio.ensure_future(_next(watcher))
                await asyncio.wait(
                    {update, rewatch}, timeout=next_check - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                if rewatch.done():
                    return "reconnect"
                if update.done():
                    entry, update = update.result(), None
                    if entry is not None:
                        self._apply(entry)
                elif loop.time() >= next_check:
                    if await self._has_gap():
                        return "gap"
                    next_check = loop.time() + GAP_CHECK_S
        finally:
            for task in (rewatch, update):
                if task is not None:
                    task.cancel()

    async def _has_gap(self) -> bool:
        """True when the bucket holds a sequence that never reached us, or went back."""
        for _ in range(2):
            seen = self._last_sequence
            info = await self._bus.js.stream_info(f"KV_{self._bucket.name}")
            if info.state.last_seq == self._last_sequence:
                return False
            await asyncio.sleep(1.0)
            if self._last_sequence != seen:
                return False
        return True

    def _apply(self, entry: KeyValue.Entry) -> None:
        self._last_sequence = max(self._last_sequence, entry.revision or 0)
        old = self._items.get(entry.key)
        new: DocumentT | None = None
        if entry.operation is None:
            new = self._parse(entry)
            if new is None or (old is not None and new.aggregateversion < old.aggregateversion):
                return
        if old == new:
            return
        items = dict(self._items)
        if new is None:
            items.pop(entry.key, None)
        else:
            items[entry.key] = new
        self._swap(items)
        self._notify(Change(entry.key, old, new))

    def _swap(self, items: dict[str, DocumentT]) -> None:
        self._items = items
        ITEMS.labels(self._bucket.name).set(len(items))

    def _notify(self, change: Change[DocumentT]) -> None:
        for callback in self._callbacks:
            callback(change)

    def _parse(self, entry: KeyValue.Entry) -> DocumentT | None:
        try:
            return self._document.model_validate_json(entry.value or b"")
        except ValidationError as error:
            INVALID.labels(self._bucket.name).inc()
            log.error("kv_document_invalid", bucket=self._bucket.name, key=entry.key, errors=error.error_count())
            return None


async def _count(bus: Bus, bucket: BucketSpec) -> int:
    """Entries a watch will deliver: with history 1, one message a key, deletion markers included."""
    return (await bus.js.stream_info(f"KV_{bucket.name}")).state.messages


async def _snapshot(watcher: KeyValue.KeyWatcher, expected: int) -> list[KeyValue.Entry]:
    """Every entry of a bucket, in order.

    nats-py's end-of-snapshot marker may overtake the entries, so that they are counted, too.

    Raises:
        TimeoutError, nats.errors.TimeoutError: the snapshot did not come in time.
    """
    entries: list[KeyValue.Entry] = []
    marked = False
    async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
        while not marked or len(entries) < expected:
            try:
                entry = await watcher.updates(timeout=STRAGGLER_S if marked else SNAPSHOT_TIMEOUT_S)
            except NatsTimeoutError:
                if marked:
                    break  # a key was purged since it was counted
                raise
            if entry is None:
                marked = True
            else:
                entries.append(cast(KeyValue.Entry, entry))
    return entries


async def _next(watcher: KeyValue.KeyWatcher) -> KeyValue.Entry | None:
    while True:
        try:
            return cast("KeyValue.Entry | None", await watcher.updates(timeout=3600))
        except NatsTimeoutError:
            continue


async def _stop(watcher: KeyValue.KeyWatcher) -> None:
    try:
        async with asyncio.timeout(2):
            await watcher.stop()
    except (NatsError, OSError, TimeoutError):
        log.debug("kv_watch_stop_failed")


class KVStore(Generic[DocumentT]):
    """The writer's side of a bucket. Exactly one service holds it."""

    def __init__(self, bus: Bus, bucket: BucketSpec) -> None:
        self._bus = bus
        self._bucket = bucket

    async def put(self, key: str, document: DocumentT) -> int:
        """Store a document; returns the revision.

        Raises:
            TransientError: NATS is away or did not confirm; the write may or may not have happened.
        """
        return await self._guard(self._put(key, document.model_dump_json().encode()))

    async def delete(self, key: str) -> None:
        """Remove a key; absence is success.

        Raises:
            TransientError: as `put`.
        """
        await self._guard(self._delete(key))

    async def values(self) -> dict[str, bytes]:
        """Every key of the bucket with its stored bytes, readable or not.

        Raises:
            TransientError: as `put`.
        """
        return await self._guard(self._values(), timeout_s=SNAPSHOT_TIMEOUT_S)

    async def keys(self) -> set[str]:
        """Every key of the bucket; errors as `values`."""
        return set(await self.values())

    async def _put(self, key: str, value: bytes) -> int:
        return await (await self._bus.js.key_value(self._bucket.name)).put(key, value)

    async def _delete(self, key: str) -> None:
        try:
            await (await self._bus.js.key_value(self._bucket.name)).delete(key)
        except KeyNotFoundError:
            return

    async def _values(self) -> dict[str, bytes]:
        kv = await self._bus.js.key_value(self._bucket.name)
        expected = await _count(self._bus, self._bucket)
        watcher = await kv.watchall()
        try:
            last = {entry.key: entry for entry in await _snapshot(watcher, expected)}
        finally:
            await _stop(watcher)
        return {key: entry.value or b"" for key, entry in last.items() if entry.operation is None}

    async def _guard(self, operation: Coroutine[Any, Any, ResultT], timeout_s: float = PUT_TIMEOUT_S) -> ResultT:
        try:
            if not self._bus.connected:
                operation.close()
                raise TransientError("NATS is not connected")
            async with asyncio.timeout(timeout_s):
                return await operation
        except (NatsError, OSError, TimeoutError) as error:
            raise TransientError(f"bucket {self._bucket.name}: {type(error).__name__}") from error
