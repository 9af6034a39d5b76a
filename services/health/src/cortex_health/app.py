"""Composition root of the health service."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from prometheus_client import REGISTRY

from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Lifecycle
from cortex_contracts.streams import HEALTH_SUSPECTED, MODELS, REPLICAS, VERDICTS
from cortex_health.adapters.documents import EngineKeys, ViewedDocuments
from cortex_health.adapters.engine_http import HttpEngines, new_client
from cortex_health.adapters.engine_requests import HttpRequests
from cortex_health.adapters.exporter import EngineExporter
from cortex_health.adapters.members import Members, member_name
from cortex_health.adapters.sender import sender
from cortex_health.adapters.verdict_store import KvVerdictStore
from cortex_health.board import VerdictBoard
from cortex_health.domain.verdicts import Probe
from cortex_health.entrypoints import discovery, events, rpc
from cortex_health.handlers import Prober, World
from cortex_health.settings import Settings
from cortex_health.tester import Tester, name_at
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.events import EventPublisher
from cortex_kit.kv import Change, KVView
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service

NAME = "health"


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
    members = Members(
        bus, clock, name=member_name(settings.instance), address=settings.address(), ttl_s=settings.member_ttl_s
    )
    board = VerdictBoard(
        KvVerdictStore(bus), EventPublisher(bus, source=source), clock, source=source, member=members.name
    )
    exporter = EngineExporter(clock, documents.model_name)
    bus.on_reconnect(board.rewrite_all)
    async with new_client(connect_timeout_s=settings.connect_timeout_s, timeout_s=settings.probe_timeout_s) as client:
        canary = HttpRequests(client, keys, deadline_s=settings.canary_timeout_s)

        async def prove(replica: ReplicaDocumentV1) -> Probe | None:
            model = documents.model(replica.model_id)
            if model is None or model.lifecycle is Lifecycle.ON_DEMAND:
                return None  # a request would keep it from ever being idle
            return await canary.prove(replica, model, name_at(model, replica))

        engines = HttpEngines(client, keys, deadline_s=settings.probe_timeout_s, prove=prove)
        prober = Prober(World(documents, engines, members, exporter, clock), board, settings.policy())
        events.register(broker, prober, rpc.forwarder(bus), clock)
        rpc.bind_probe(questions, prober, sender(bus))
        rpc.bind_test(questions, Tester(documents, HttpRequests(client, keys, deadline_s=settings.test_timeout_s)))

        def on_change(change: Change[ReplicaDocumentV1] | Change[ModelDocumentV1]) -> None:
            prober.notice()

        replicas.on_change(on_change)
        models.on_change(on_change)
        members.on_change(prober.notice)

        http = ops_app(
            NAME,
            {
                "nats": bus.readiness,
                "members": members.readiness,
                "replicas": replicas.readiness,
                "verdicts": verdicts.readiness,
                "models": models.readiness,
            },
        )
        http.include_router(discovery.discovery_router(lambda: _targets(settings, members, documents)))
        with _exported(exporter):
            yield Service(
                name=NAME,
                http=http,
                tasks={
                    "bus": bus.run,
                    "replicas": replicas.run,
                    "verdicts": verdicts.run,
                    "models": models.run,
                    "members": members.run,
                    "others": members.follow,
                    "board": board.run,
                    "prober": prober.run,
                    "events": lambda: run_broker(broker, bus, [HEALTH_SUSPECTED]),
                    "rpc": lambda: run_broker(questions, bus),
                },
                drain=members.leave,
            )


def _targets(settings: Settings, members: Members, documents: ViewedDocuments) -> list[discovery.TargetGroup]:
    found = discovery.member_groups(members.addresses())
    if settings.sd_vllm_engines:
        running = documents.replicas().values()
        found += discovery.vllm_groups(running, lambda replica: documents.model_name(replica.model_id))
    return found


@contextmanager
def _exported(exporter: EngineExporter) -> Generator[None]:
    REGISTRY.register(exporter)
    try:
        yield
    finally:
        REGISTRY.unregister(exporter)
