"""Composition root of the registry: shared core, then one part per area (wiring/)."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from faststream.nats import NatsBroker

from cortex_contracts.streams import DEAD_LETTERS, REGISTRY_EVENTS, REGISTRY_USAGE
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.dead_letters import attach_dead_letters
from cortex_kit.proxies import ForwardedFor
from cortex_kit.runner import Service
from cortex_registry.adapters.nats import Provisioner
from cortex_registry.adapters.postgres import Database
from cortex_registry.entrypoints.guards import RootToken
from cortex_registry.entrypoints.http import create_app
from cortex_registry.handlers.observation import Observation
from cortex_registry.settings import Settings
from cortex_registry.wiring.chats import chats_part
from cortex_registry.wiring.core import Core, Part, Task, new_views
from cortex_registry.wiring.deployment import deployment_part
from cortex_registry.wiring.doctor import doctor_part
from cortex_registry.wiring.events import events_part
from cortex_registry.wiring.identity import identity_part
from cortex_registry.wiring.keys import key_service, keys_part
from cortex_registry.wiring.models import model_service, models_part
from cortex_registry.wiring.overview import overview_part
from cortex_registry.wiring.quality import idempotency_store, quality_part
from cortex_registry.wiring.system import system_part
from cortex_registry.wiring.upstreams import upstreams_part
from cortex_registry.wiring.usage import usage_part


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Wire everything; the runner runs the tasks."""
    core = _core(settings)
    idempotency = idempotency_store(core)
    parts = (*_parts(core), quality_part(idempotency))
    http = create_app(
        [router for part in parts for router in part.routers],
        readiness=core.readiness,
        authenticators=[
            RootToken(settings.admin_token),
            *(authenticator for part in parts for authenticator in part.authenticators),
        ],
        public=frozenset(path for part in parts for path in part.public),
        max_body_bytes=settings.max_body_bytes,
        idempotency=idempotency,
    )
    http.add_middleware(ForwardedFor, trusted=settings.trusted_proxies)
    await core.database.open()
    try:
        yield Service(
            name="registry",
            http=http,
            tasks=_tasks(core, parts),
            drain=lambda: _drain(parts),
            uvicorn_options={"proxy_headers": False},  # by uvicorn's own rules; ours are the settings'
        )
    finally:
        await core.database.close()


def _core(settings: Settings) -> Core:
    source = f"cortex/registry/{settings.instance}"
    bus = Bus(settings.nats_url, name=source)
    database = Database(
        settings.database_url,
        size=settings.database_pool_size,
        acquire_timeout_s=settings.database_acquire_timeout_s,
        command_timeout_s=settings.database_timeout_s,
    )
    views = new_views(bus)
    provisioner = Provisioner(bus, settings)
    broker = new_broker(settings.nats_url, name=f"{source}/consumers")
    attach_dead_letters(broker, bus)
    return Core(
        settings=settings,
        bus=bus,
        database=database,
        views=views,
        provisioner=provisioner,
        observation=Observation(views.replicas, views.verdicts, views.nodes),
        broker=broker,
        readiness={
            "postgres": database.readiness,
            "nats": bus.readiness,
            "provisioning": provisioner.readiness,
            "replicas": views.replicas.readiness,
            "verdicts": views.verdicts.readiness,
        },
    )


def _parts(core: Core) -> Sequence[Part]:
    models, keys = model_service(core), key_service(core)
    return (
        identity_part(core),
        events_part(core),  # before the models, whose path of a reference takes everything below
        upstreams_part(core),  # as the events: models/registry
        models_part(core, models),
        keys_part(keys),
        usage_part(core),
        chats_part(core),
        system_part(core, models, keys),
        overview_part(core),
        doctor_part(core),
        deployment_part(core, models),
    )


def _tasks(core: Core, parts: Sequence[Part]) -> Mapping[str, Task]:
    views = core.views
    fed: dict[str, Task] = {name: task for part in parts for name, task in part.fed.items()}
    return {
        "nats": core.bus.run,
        "postgres": core.database.run,
        "provisioning": core.provisioner.run,
        "models-view": views.models.run,
        "replicas-view": views.replicas.run,
        "verdicts-view": views.verdicts.run,
        "nodes-view": views.nodes.run,
        **{name: task for part in parts for name, task in part.tasks.items()},
        "consumers": lambda: _consume(core.broker, core.bus, fed),
    }


async def _drain(parts: Sequence[Part]) -> None:
    for part in parts:
        for end in part.drain:
            await end()


async def _consume(broker: NatsBroker, bus: Bus, fed: Mapping[str, Task]) -> None:
    """What the consumers feed outlives the broker, which waits for the messages it has handed over."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_run(task), name=name) for name, task in fed.items()]
        try:
            await run_broker(broker, bus, [REGISTRY_USAGE, REGISTRY_EVENTS, DEAD_LETTERS])
        finally:
            for task in running:
                task.cancel()


async def _run(task: Task) -> None:
    await task()
