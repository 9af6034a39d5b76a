"""Composition root of the health service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.streams import HEALTH_SUSPECTED, REPLICAS, VERDICTS
from cortex_health.adapters.documents import ViewedDocuments
from cortex_health.adapters.engine_http import HttpEngines, new_client
from cortex_health.board import VerdictBoard
from cortex_health.entrypoints import events
from cortex_health.handlers import Prober
from cortex_health.settings import Settings
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
    replicas = KVView(bus, REPLICAS, ReplicaDocumentV1)
    verdicts = KVView(bus, VERDICTS, VerdictDocumentV1)
    lease = Lease(bus, LEASE, holder=source, ttl_s=settings.lease_ttl_s)
    board = VerdictBoard(
        KVStore[VerdictDocumentV1](bus, VERDICTS), EventPublisher(bus, source=source), clock, source=source
    )
    bus.on_reconnect(board.rewrite_all)
    async with new_client(connect_timeout_s=settings.connect_timeout_s, timeout_s=settings.probe_timeout_s) as client:
        engines = HttpEngines(client, settings.secret_key, deadline_s=settings.probe_timeout_s)
        prober = Prober(ViewedDocuments(replicas, verdicts), engines, board, lease, clock, settings.policy())
        events.register(broker, prober)

        def on_replica(change: Change[ReplicaDocumentV1]) -> None:
            prober.notice()

        replicas.on_change(on_replica)

        async def consume() -> None:
            await lease.wait_held()  # a stand-by must not take suspicions from the instance that probes
            await run_broker(broker, bus, [HEALTH_SUSPECTED])

        yield Service(
            name=NAME,
            http=ops_app(NAME, {"nats": bus.readiness, "replicas": replicas.readiness, "verdicts": verdicts.readiness}),
            tasks={
                "bus": bus.run,
                "replicas": replicas.run,
                "verdicts": verdicts.run,
                "lease": lease.run,
                "board": board.run,
                "prober": prober.run,
                "events": consume,
            },
            drain=lease.release,
        )
