"""Composition root of the registry."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter
from faststream.nats import NatsBroker

from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.streams import DEAD_LETTERS, MODELS, NODES, REGISTRY_USAGE, REPLICAS, VERDICTS
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.dead_letters import attach_dead_letters
from cortex_kit.kv import KVView
from cortex_kit.lease import Lease
from cortex_kit.runner import Service
from cortex_registry.adapters.keys import PostgresKeys
from cortex_registry.adapters.models import PostgresModels
from cortex_registry.adapters.nats import NatsEngineLogs, NatsEvents, NatsInspector, NatsMirror, Provisioner
from cortex_registry.adapters.outbox import PostgresOutboxSource
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.usage import PostgresUsage
from cortex_registry.entrypoints.api import KeyRoutes, ModelRoutes, SystemRoutes, SystemSources, UsageRoutes
from cortex_registry.entrypoints.events import attach_usage
from cortex_registry.entrypoints.http import create_app
from cortex_registry.handlers.keys import KeyService
from cortex_registry.handlers.models import ModelRules, ModelService
from cortex_registry.handlers.observation import Observation
from cortex_registry.handlers.projector import Projector, Views
from cortex_registry.handlers.relay import Relay, RelayTiming
from cortex_registry.handlers.usage import UsageBatcher
from cortex_registry.settings import Settings

PROJECTOR_LEASE = "registry-projector"


@dataclass(frozen=True, slots=True)
class _Views:
    """The buckets the registry follows."""

    models: KVView[ModelDocumentV1]
    replicas: KVView[ReplicaDocumentV1]
    verdicts: KVView[VerdictDocumentV1]
    nodes: KVView[NodeDocumentV1]


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Wire everything; the runner runs the tasks."""
    source = f"cortex/registry/{settings.instance}"
    bus = Bus(settings.nats_url, name=source)
    database = Database(
        settings.database_url,
        size=settings.database_pool_size,
        acquire_timeout_s=settings.database_acquire_timeout_s,
        command_timeout_s=settings.database_timeout_s,
    )
    views = _Views(
        KVView(bus, MODELS, ModelDocumentV1),
        KVView(bus, REPLICAS, ReplicaDocumentV1),
        KVView(bus, VERDICTS, VerdictDocumentV1),
        KVView(bus, NODES, NodeDocumentV1),
    )
    provisioner = Provisioner(bus, settings)
    readiness: dict[str, Callable[[], str | None]] = {
        "postgres": database.readiness,
        "nats": bus.readiness,
        "provisioning": provisioner.readiness,
        "replicas": views.replicas.readiness,
        "verdicts": views.verdicts.readiness,
    }
    routers = _routers(settings, bus, database, views, readiness)
    http = create_app(
        routers, readiness=readiness, admin_token=settings.admin_token, max_body_bytes=settings.max_body_bytes
    )
    await database.open()
    try:
        tasks = _tasks(settings, bus, database, views, provisioner)
        yield Service(name="registry", http=http, tasks=tasks)
    finally:
        await database.close()


def _routers(
    settings: Settings,
    bus: Bus,
    database: Database,
    views: _Views,
    readiness: dict[str, Callable[[], str | None]],
) -> list[APIRouter]:
    clock = SystemClock()
    root = str(settings.models_dir) if settings.models_dir is not None else None
    observation = Observation(views.replicas, views.verdicts, views.nodes)
    inspector = NatsInspector(bus, settings.inspector_timeout_s)
    models = ModelService(
        PostgresModels(database),
        observation,
        inspector,
        NatsEngineLogs(bus, settings.logs_timeout_s),
        rules=ModelRules(settings.secret_key, settings.engines, root),
        clock=clock,
    )
    keys = KeyService(PostgresKeys(database), clock=clock)
    system = SystemSources(models, keys, observation, inspector, readiness, root)
    return [
        ModelRoutes(models).router(),
        KeyRoutes(keys).router(),
        UsageRoutes(PostgresUsage(database)).router(),
        SystemRoutes(system).router(),
    ]


def _tasks(
    settings: Settings, bus: Bus, database: Database, views: _Views, provisioner: Provisioner
) -> dict[str, Callable[[], Awaitable[None]]]:
    lease = Lease(bus, PROJECTOR_LEASE, holder=settings.instance)
    return {
        "nats": bus.run,
        "postgres": database.run,
        "provisioning": provisioner.run,
        "models-view": views.models.run,
        "replicas-view": views.replicas.run,
        "verdicts-view": views.verdicts.run,
        "nodes-view": views.nodes.run,
        "relay": _relay(settings, bus, database, provisioner).run,
        "lease": lease.run,
        "projector": _projector(settings, bus, database, views, lease).run,
        "consumers": _consumers(settings, bus, database),
    }


def _relay(settings: Settings, bus: Bus, database: Database, provisioner: Provisioner) -> Relay:
    return Relay(
        PostgresOutboxSource(database),
        NatsMirror(bus),
        NatsEvents(bus, source=f"cortex/registry/{settings.instance}"),
        provisioner,
        clock=SystemClock(),
        timing=RelayTiming(settings.outbox_poll_s, settings.outbox_batch_size, settings.resync_s),
    )


def _projector(settings: Settings, bus: Bus, database: Database, views: _Views, lease: Lease) -> Projector:
    projector = Projector(
        Views(views.models, views.replicas, views.verdicts),
        PostgresModels(database),
        lease,
        clock=SystemClock(),
        settle_s=settings.state_settle_s,
        grace_s=settings.state_grace_s,
    )
    views.models.on_change(projector.touch)
    views.replicas.on_change(projector.touch)
    views.verdicts.on_change(projector.touch)
    bus.on_reconnect(projector.hush)
    return projector


def _consumers(settings: Settings, bus: Bus, database: Database) -> Callable[[], Awaitable[None]]:
    batcher = UsageBatcher(
        PostgresUsage(database), batch_size=settings.usage_batch_size, wait_s=settings.usage_batch_wait_s
    )
    broker = new_broker(settings.nats_url, name=f"cortex/registry/{settings.instance}/consumers")
    attach_usage(broker, batcher, concurrency=settings.usage_batch_size)
    attach_dead_letters(broker, bus)
    return lambda: _consume(broker, bus, batcher)


async def _consume(broker: NatsBroker, bus: Bus, batcher: UsageBatcher) -> None:
    """The batcher outlives the broker, which waits for the records it has handed over."""
    async with asyncio.TaskGroup() as group:
        batching = group.create_task(batcher.run())
        try:
            await run_broker(broker, bus, [REGISTRY_USAGE, DEAD_LETTERS])
        finally:
            batching.cancel()
