"""The gateway's view of the world: the routing table and the key ring, swapped whole when a bucket changes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_gateway.domain.auth import KeyRing, build_key_ring
from cortex_gateway.domain.routing import Keys, RoutingTable, build_table
from cortex_kit.kv import Change, KVView
from cortex_kit.logging import get_logger

log = get_logger()


@dataclass(frozen=True, slots=True)
class Views:
    """The four buckets that the gateway reads."""

    models: KVView[ModelDocumentV1]
    keys: KVView[KeyDocumentV1]
    replicas: KVView[ReplicaDocumentV1]
    verdicts: KVView[VerdictDocumentV1]


class Projection:
    """Holds the current table and ring; read them freely. Several changes in one turn of the loop make one swap."""

    def __init__(self, views: Views, keys: Keys) -> None:
        self.table = RoutingTable()
        self.keys: KeyRing = {}
        self.synced = False
        self._views = views
        self._engine_keys = keys
        self._on_swap: Callable[[RoutingTable], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._table_dirty = False
        self._keys_dirty = False
        views.keys.on_change(self._on_key_change)
        for view in (views.models, views.replicas, views.verdicts):
            view.on_change(self._on_route_change)

    async def run(self) -> None:
        """Build the first table once all four buckets were read, then stay."""
        for view in (self._views.models, self._views.keys, self._views.replicas, self._views.verdicts):
            await view.wait_synced()
        self._swap_keys()
        self._swap_table()
        self.synced = True
        log.info("projection_synced", models=len(self.table.routes), keys=len(self.keys))
        await asyncio.Event().wait()

    def readiness(self) -> str | None:
        """NATS going away later does not make the gateway unready: it serves from what it has."""
        return None if self.synced else "the buckets models, keys, replicas and verdicts have not all been read yet"

    def on_swap(self, callback: Callable[[RoutingTable], None]) -> None:
        """Call back with each new table."""
        self._on_swap = callback

    async def wait_change(self, timeout_s: float) -> None:
        """Return when the table was swapped, or after `timeout_s`."""
        changed = self._changed
        await asyncio.wait([changed], timeout=timeout_s)

    def _on_key_change(self, _change: Change[KeyDocumentV1]) -> None:
        if not self._keys_dirty:
            self._keys_dirty = True
            self._loop.call_soon(self._swap_keys)

    def _on_route_change(
        self, _change: Change[ModelDocumentV1] | Change[ReplicaDocumentV1] | Change[VerdictDocumentV1]
    ) -> None:
        if not self._table_dirty:
            self._table_dirty = True
            self._loop.call_soon(self._swap_table)

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
