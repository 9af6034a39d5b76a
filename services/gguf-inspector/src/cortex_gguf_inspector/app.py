"""Composition root of the GGUF inspector."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.streams import GGUF
from cortex_gguf_inspector.adapters.disk import DiskInspector
from cortex_gguf_inspector.adapters.library import DiskLibrary
from cortex_gguf_inspector.catalog import Catalog, Reconciler
from cortex_gguf_inspector.entrypoints import rpc
from cortex_gguf_inspector.entrypoints.estimate_rpc import attach_estimates
from cortex_gguf_inspector.entrypoints.library_rpc import register_library
from cortex_gguf_inspector.handlers import InspectHandler, LibraryHandler, Watcher
from cortex_gguf_inspector.merge.jobs import MergeJobs
from cortex_gguf_inspector.settings import Settings
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore, KVView
from cortex_kit.lease import Lease
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service

NAME = "gguf-inspector"
LEASE = "gguf-library"


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Everything the service consists of; starts nothing."""
    bus = Bus(settings.nats_url, name=NAME)
    broker = new_broker(settings.nats_url, name=f"{NAME}-rpc")
    observers = EventPublisher(bus, source=f"cortex/{NAME}/{settings.instance}")
    known = KVView[GgufDocumentV1](bus, GGUF, GgufDocumentV1)
    catalog = Catalog(KVStore[GgufDocumentV1](bus, GGUF), observers, known)
    lease = Lease(bus, LEASE, holder=settings.instance)
    merges = MergeJobs(settings.models_dir, settings.merges(), observers)
    with (
        DiskInspector(settings.models_dir, settings.limits(), workers=settings.workers) as inspector,
        DiskLibrary(
            settings.models_dir, settings.limits(), settings.bounds(), verify_timeout_s=settings.verify_timeout_s
        ) as disk,
    ):
        watcher = Watcher(disk, Reconciler(catalog, known), known, lease, interval_s=settings.scan_interval_s)
        rpc.register(broker, InspectHandler(inspector, catalog))
        register_library(broker, LibraryHandler(disk, merges))
        attach_estimates(broker, settings.models_dir, settings.limits())

        async def serve_rpc() -> None:
            await run_broker(broker, bus)

        async def drain() -> None:
            merges.stop()

        yield Service(
            name=NAME,
            http=ops_app(NAME, {"nats": bus.readiness, "models": inspector.readiness}),
            tasks={
                "bus": bus.run,
                "documents": known.run,
                "lease": lease.run,
                "rpc": serve_rpc,
                "watch": watcher.run,
                "merges": merges.run,
            },
            drain=drain,
        )
