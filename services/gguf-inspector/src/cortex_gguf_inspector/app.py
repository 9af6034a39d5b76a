"""Composition root of the GGUF inspector."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.streams import GGUF
from cortex_gguf_inspector.adapters.disk import DiskInspector
from cortex_gguf_inspector.entrypoints import rpc
from cortex_gguf_inspector.handlers import InspectHandler
from cortex_gguf_inspector.settings import Settings
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service

NAME = "gguf-inspector"


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Everything the service consists of; starts nothing."""
    bus = Bus(settings.nats_url, name=NAME)
    broker = new_broker(settings.nats_url, name=f"{NAME}-rpc")
    observers = EventPublisher(bus, source=f"cortex/{NAME}/{settings.instance}")
    with DiskInspector(settings.models_dir, settings.limits(), workers=settings.workers) as inspector:
        documents = KVStore[GgufDocumentV1](bus, GGUF)
        rpc.register(broker, InspectHandler(inspector, documents, observers))

        async def serve_rpc() -> None:
            await run_broker(broker, bus)

        readiness = {"nats": bus.readiness, "models": inspector.readiness}
        yield Service(name=NAME, http=ops_app(NAME, readiness), tasks={"bus": bus.run, "rpc": serve_rpc})
