"""Composition root of the health service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.streams import HEALTH_SUSPECTED, MODELS, REPLICAS, VERDICTS
from cortex_health.adapters.documents import EngineKeys, ViewedDocuments
from cortex_health.adapters.engine_http import HttpEngines, new_client
from cortex_health.adapters.engine_requests import HttpRequests
from cortex_health.adapters.sender import sender
from cortex_health.board import VerdictBoard
from cortex_health.entrypoints import events, rpc
from cortex_health.handlers import Prober
from cortex_health.settings import Settings
from cortex_health.tester import Tester
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.events import EventPublisher
from cortex_kit.kv import Change, KVStore, KVView
from cortex_kit.lease import Lease
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service

NAME = "health"
LEASE = "health-prober"


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Everything the service consists of; starts nothing."""
    clock = SystemClock()
    source = f"cortex/{NAME}/{settings.instance}"
    bus = Bus(settings.nats_url, name=NAME)
    broker = new_broker(settings.nats_url, name=f"{NAME}-events")
    questions = new_broker(settings.nats_url, name=f"{NAME}-rpc")
    replicas = KVView(bus, REPLICAS, ReplicaDocumentV1)
    verdicts = KVView(bus, VERDICTS, VerdictDocumentV1)
    models = KVView(bus, MODELS, ModelDocumentV1)
    documents = ViewedDocuments(replicas, verdicts, models)
    keys = EngineKeys(settings.secret_key, settings.secret_keys_old, models)
    lease = Lease(bus, LEASE, holder=source, ttl_s=settings.lease_ttl_s)
    board = VerdictBoard(
        KVStore[VerdictDocumentV1](bus, VERDICTS), EventPublisher(bus, source=source), clock, source=source
    )
    bus.on_reconnect(board.rewrite_all)
    async with new_client(connect_timeout_s=settings.connect_timeout_s, timeout_s=settings.probe_timeout_s) as client:
        engines = HttpEngines(client, keys, deadline_s=settings.probe_timeout_s)
        prober = Prober(documents, engines, board, lease, clock, settings.policy())
        events.register(broker, prober)
        rpc.bind_probe(questions, prober, sender(bus))
        rpc.bind_test(questions, Tester(documents, HttpRequests(client, keys, deadline_s=settings.test_timeout_s)))

        def on_change(change: Change[ReplicaDocumentV1] | Change[ModelDocumentV1]) -> None:
            prober.notice()

        replicas.on_change(on_change)
        models.on_change(on_change)

        async def consume() -> None:
            await lease.wait_held()  # a stand-by must not take suspicions from the instance that probes
            await run_broker(broker, bus, [HEALTH_SUSPECTED])

        async def answer() -> None:
            await run_broker(questions, bus)

        yield Service(
            name=NAME,
            http=ops_app(
                NAME,
                {
                    "nats": bus.readiness,
                    "replicas": replicas.readiness,
                    "verdicts": verdicts.readiness,
                    "models": models.readiness,
                },
            ),
            tasks={
                "bus": bus.run,
                "replicas": replicas.run,
                "verdicts": verdicts.run,
                "models": models.run,
                "lease": lease.run,
                "board": board.run,
                "prober": prober.run,
                "events": consume,
                "rpc": answer,
            },
            drain=lease.release,
        )
