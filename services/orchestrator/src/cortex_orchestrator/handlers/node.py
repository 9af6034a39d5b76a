"""What this node is: one document, rewritten when it changes, and an event when the inventory does."""

import asyncio
from collections.abc import Callable

from cortex_contracts.base import NodeId
from cortex_contracts.documents import GpuInfo, NodeDocumentV1
from cortex_contracts.events import NodeUpdatedV1
from cortex_kit.clock import next_version
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.ports import DocumentStore, EventSink, LeaseView

log = get_logger()

MEMORY_STEP = 0.05
"""A change of the available memory below this share of the whole is not worth a write."""
LOAD_STEP = 10.0
"""The same for the load of processors, in percentage points."""


def is_news(old: NodeDocumentV1 | None, new: NodeDocumentV1) -> bool:
    """Whether readers should hear of it."""
    if old is None or has_new_inventory(old, new):
        return True
    return (
        abs(old.memory_available - new.memory_available) > MEMORY_STEP * new.memory_total
        or abs((old.cpu_percent or 0.0) - (new.cpu_percent or 0.0)) > LOAD_STEP
        or any(_busier(before, now) for before, now in zip(old.gpus, new.gpus, strict=False))
    )


def _busier(old: GpuInfo, new: GpuInfo) -> bool:
    return (
        abs(old.memory_free - new.memory_free) > MEMORY_STEP * new.memory_total
        or abs((old.utilization or 0) - (new.utilization or 0)) > LOAD_STEP
    )


def has_new_inventory(old: NodeDocumentV1 | None, new: NodeDocumentV1) -> bool:
    """Whether anything but the free memory differs."""
    if old is None:
        return True

    def inventory(document: NodeDocumentV1) -> tuple[object, ...]:
        gpus = tuple((gpu.uuid, gpu.memory_total) for gpu in document.gpus)
        return document.cpu_count, document.memory_total, gpus, document.promised_memory, document.engines

    return inventory(old) != inventory(new)


class NodeReporter:
    """Writes the node's document. `describe` looks at the machine; its version is ours to set."""

    def __init__(
        self,
        describe: Callable[[], NodeDocumentV1],
        store: DocumentStore[NodeDocumentV1],
        sink: EventSink,
        lease: LeaseView,
        *,
        interval_s: float = 10.0,
    ) -> None:
        self._describe = describe
        self._store = store
        self._sink = sink
        self._lease = lease
        self._interval_s = interval_s
        self._last: NodeDocumentV1 | None = None
        self._version = 0
        self._look_now = asyncio.Event()

    def reconnected(self) -> None:
        """The store may have been wiped: write again."""
        self._last = None
        self._look_now.set()

    async def run(self) -> None:
        """Task: look every `interval_s`, write when there is news."""
        while True:
            self._look_now.clear()
            wait_s = self._interval_s
            if not self._lease.held:
                wait_s = 1.0
            else:
                try:
                    await self._report(await asyncio.to_thread(self._describe))
                except TransientError as error:
                    log.debug("node_report_delayed", error=str(error))
                    wait_s = 1.0
            try:
                async with asyncio.timeout(wait_s):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    async def _report(self, document: NodeDocumentV1) -> None:
        if not is_news(self._last, document):
            return
        self._version = next_version(self._version)
        written = document.model_copy(update={"aggregateversion": self._version})
        await self._store.put(document.id, written)
        if has_new_inventory(self._last, document):
            event = NodeUpdatedV1(
                node=NodeId(document.id), gpu_count=len(document.gpus), memory_available=document.memory_available
            )
            await self._sink.publish(event, aggregate_id=document.id, version=self._version)
        self._last = written
