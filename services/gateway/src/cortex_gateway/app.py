"""Composition root of the gateway."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.streams import KEYS, MODELS, REPLICAS, VERDICTS
from cortex_gateway import metrics
from cortex_gateway.adapters.cancel_bus import CancelBus
from cortex_gateway.adapters.counters import JetStreamCounters
from cortex_gateway.adapters.hints import HintQueue
from cortex_gateway.adapters.snapshot import SnapshotFile
from cortex_gateway.adapters.token_counter import EngineTokenCounter
from cortex_gateway.adapters.upstream_client import OpenConnections, PooledUpstreamClient
from cortex_gateway.adapters.usage_publisher import UsagePublisher
from cortex_gateway.adapters.usage_spool import UsageSpool
from cortex_gateway.admission import GatePolicy
from cortex_gateway.cancelling import Cancellation
from cortex_gateway.direct import DirectPath
from cortex_gateway.direct_request import Stations
from cortex_gateway.domain.balancing import BreakerPolicy
from cortex_gateway.domain.hedging import HedgePolicy
from cortex_gateway.domain.routing import Keys, RoutingTable
from cortex_gateway.entrypoints.operations import AsgiApp
from cortex_gateway.entrypoints.options import ServerOptions, tls_context
from cortex_gateway.entrypoints.server import Handler, HttpServer
from cortex_gateway.fleet import FleetPolicy
from cortex_gateway.forwarding import Dispatcher, Limits
from cortex_gateway.garbage import GarbageCollection
from cortex_gateway.inference import InferenceHandler
from cortex_gateway.limiter import Limiter, LimiterRules
from cortex_gateway.observing import Observing
from cortex_gateway.passthrough import Passthrough
from cortex_gateway.pipeline import Gateway, Parts, new_traffic
from cortex_gateway.projection import Projection, SnapshotRules, Views
from cortex_gateway.relay import Relay
from cortex_gateway.settings import Settings
from cortex_gateway.settlement import Bookkeeper
from cortex_gateway.tracing import RequestTracer
from cortex_gateway.traffic import Traffic
from cortex_gateway.waiting import WaitPolicy
from cortex_kit.bus import Bus
from cortex_kit.clock import Clock, SystemClock
from cortex_kit.errors import PermanentError
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVView
from cortex_kit.logging import get_logger
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service
from cortex_kit.secrets import engine_api_key, unseal
from cortex_kit.tracing import Tracing

log = get_logger()
FLUSH_TIMEOUT_S = 2.0


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Everything the gateway consists of. Raises OSError when the spool directory cannot be used."""
    clock = SystemClock()
    source = f"cortex/gateway/{settings.instance}"
    bus = Bus(settings.nats_url, name="gateway")
    events = EventPublisher(bus, source=source)
    client = PooledUpstreamClient(connect_timeout_s=settings.connect_timeout_s)
    hints = HintQueue(events, clock.monotonic)
    spool = UsageSpool(settings.spool_dir, max_bytes=settings.spool_max_bytes, fsync=settings.spool_fsync)
    publisher = UsagePublisher(spool, events.publish_raw)
    views, projection = _build_projection(bus, settings, clock)
    limiter = Limiter(JetStreamCounters(bus), clock, _limiter_rules(settings), settings.instance)
    bus.on_reconnect(limiter.on_reconnect)
    garbage = GarbageCollection()
    bus.on_reconnect(garbage.on_reconnect)
    dispatcher = Dispatcher(projection, client, hints, _limits(settings))
    tracing = _tracing(settings)
    tracer = RequestTracer(tracing)
    observing = Observing(views, tracer, dispatcher.in_flight)
    projection.on_swap(lambda table: _on_swap(table, dispatcher, client, observing))
    token_counter = EngineTokenCounter(client, timeout_s=settings.count_timeout_s)
    books = Bookkeeper(spool, token_counter, clock, source, (limiter.observe, observing.settled))
    relay = Relay(books, clock, max_response_bytes=settings.max_response_bytes)
    inference = InferenceHandler(
        projection,
        dispatcher,
        relay,
        books,
        limiter=limiter,
        tracer=tracer,
        default_max_tokens=settings.default_max_tokens,
    )
    cancels = CancelBus(bus, inference.running)
    passthrough = Passthrough(projection, client, enabled=settings.upstream_passthrough)
    traffic = new_traffic()
    cancellation = Cancellation(inference.running, cancels)
    gateway = Gateway(Parts(projection, inference, books, clock, passthrough, cancellation, traffic))
    pool = OpenConnections(client)
    stations = Stations(dispatcher, pool, relay, books, inference.running, traffic, clock, settings.max_response_bytes)
    direct = DirectPath(
        stations, projection, limiter, tracer, gateway.resume, default_max_tokens=settings.default_max_tokens
    )
    server = _build_http(settings, gateway.handle, direct, _checks(projection, spool, traffic))
    _show_state(spool, projection)
    tasks = _tasks(bus, views, projection, (hints, cancels, limiter, books, publisher, garbage))

    try:
        with observing.exported():
            yield Service(
                name="gateway",
                http=server,
                tasks=tasks,
                drain=lambda: _drain(server, gateway, limiter, publisher, projection),
            )
    finally:
        await _close(tracing, client, spool)


async def _drain(
    server: HttpServer, gateway: Gateway, limiter: Limiter, publisher: UsagePublisher, projection: Projection
) -> None:
    await server.drain()
    await gateway.drain()
    await limiter.drained()
    await publisher.flush(FLUSH_TIMEOUT_S)
    await projection.save()


def _tasks(
    bus: Bus,
    views: Views,
    projection: Projection,
    others: tuple[HintQueue, CancelBus, Limiter, Bookkeeper, UsagePublisher, GarbageCollection],
) -> dict[str, Callable[[], Awaitable[None]]]:
    hints, cancels, limiter, books, publisher, garbage = others
    return {
        "bus": bus.run,
        "models": views.models.run,
        "keys": views.keys.run,
        "replicas": views.replicas.run,
        "verdicts": views.verdicts.run,
        "projection": projection.run,
        "hints": hints.run,
        "cancels": cancels.run,
        "limits": limiter.run,
        "books": books.run,
        "usage": publisher.run,
        "garbage": garbage.run,
        "staleness": lambda: _watch_staleness(bus),
    }


def _build_projection(bus: Bus, settings: Settings, clock: Clock) -> tuple[Views, Projection]:
    views = Views(
        KVView(bus, MODELS, ModelDocumentV1),
        KVView(bus, KEYS, KeyDocumentV1),
        KVView(bus, REPLICAS, ReplicaDocumentV1),
        KVView(bus, VERDICTS, VerdictDocumentV1),
    )
    path = settings.snapshot_path or settings.spool_dir / "projection.snapshot"
    store = SnapshotFile(path, settings.secret_key, settings.secret_keys_old)
    rules = SnapshotRules(settings.snapshot_wait_s, settings.snapshot_max_age_s)
    return views, Projection(views, _keys(settings), clock, store, rules, lambda: bus.connected)


def _limiter_rules(settings: Settings) -> LimiterRules:
    return LimiterRules(
        wait_s=settings.limit_wait_s,
        default_completion_tokens=settings.limit_default_completion_tokens,
        assumed_gateways=settings.limit_assumed_gateways,
    )


def _keys(settings: Settings) -> Keys:
    """Derived keys for our engines, sealed ones for those of others. Unsealing is remembered: tables are built often."""

    @functools.lru_cache(maxsize=256)
    def opened(sealed: str) -> str | None:
        try:
            return unseal(settings.secret_key, sealed, settings.secret_keys_old)
        except PermanentError as error:
            log.error("endpoint_key_unreadable", error=str(error))
            return None

    return Keys(lambda replica, spec_hash: engine_api_key(settings.secret_key, replica, spec_hash), opened)


def _show_state(spool: UsageSpool, projection: Projection) -> None:
    metrics.SPOOL_BYTES.set_function(lambda: spool.pending_bytes)
    metrics.SPOOL_SEGMENTS.set_function(lambda: spool.segments)
    metrics.PROJECTION_AGE.set_function(projection.age_s)


async def _close(tracing: Tracing | None, client: PooledUpstreamClient, spool: UsageSpool) -> None:
    if tracing is not None:
        await tracing.close()
    client.close()
    spool.close()


def _tracing(settings: Settings) -> Tracing | None:
    config = settings.tracing()
    return Tracing(config) if config is not None else None


def _on_swap(table: RoutingTable, dispatcher: Dispatcher, client: PooledUpstreamClient, observing: Observing) -> None:
    """Drop what is remembered of replicas that are gone."""
    dispatcher.on_swap(table)
    observing.on_swap(table)
    endpoints = (target.endpoint for route in table.routes for target in route.targets)
    client.forget_others({(endpoint.host, endpoint.port, endpoint.tls) for endpoint in endpoints})


def _checks(projection: Projection, spool: UsageSpool, traffic: Traffic) -> AsgiApp:
    return ops_app(
        "Cortex gateway",
        {
            "projection": projection.readiness,
            "spool": spool.readiness,
            "draining": lambda: "shutting down" if traffic.draining else None,
        },
        lambda: {"projection": projection.details()},
    )


def _build_http(settings: Settings, handler: Handler, direct: DirectPath, operations: AsgiApp) -> HttpServer:
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = tls_context(settings.tls_certificate, settings.tls_key)
    return HttpServer(handler, operations, _server_options(settings), direct=direct, tls=tls)


def _server_options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        max_head_bytes=settings.max_head_bytes,
        max_headers=settings.max_headers,
        max_body_bytes=settings.max_body_bytes,
        max_bodies_bytes=settings.max_bodies_bytes,
        max_connections=settings.max_connections,
        max_requests=settings.max_requests_per_connection,
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        stall_timeout_s=settings.client_stall_timeout_s,
        trusted_proxies=settings.trusted_proxies,
        busy_poll_s=settings.busy_poll_us / 1_000_000,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_attempts=settings.max_attempts,
        breaker=BreakerPolicy(settings.breaker_failures, settings.breaker_cooldown_s),
        wait=WaitPolicy(
            wait_s=settings.replica_wait_s,
            max_waiters=settings.max_waiters,
            demand_wait_s=settings.demand_wait_s,
            max_demand_waiters=settings.max_demand_waiters,
            ping_s=settings.demand_ping_s,
        ),
        gate=GatePolicy(
            max_queue=settings.max_queue,
            wait_s=settings.queue_wait_s,
            batch_wait_s=settings.queue_wait_batch_s,
            batch_handicap_s=settings.batch_handicap_s,
        ),
        fleet=FleetPolicy(
            bounded_load=settings.bounded_load,
            prefix_bytes=settings.prefix_bytes,
            default_slots=settings.replica_slots,
            slot_factor=settings.slot_factor,
        ),
        hedge=HedgePolicy(settings.hedge, settings.hedge_after_s),
    )


async def _watch_staleness(bus: Bus) -> None:
    """Keep the gauge of how old the projection may be."""
    loop = asyncio.get_running_loop()
    connected_at = loop.time()
    while True:
        if bus.connected:
            connected_at = loop.time()
        metrics.STALENESS.set(round(loop.time() - connected_at, 1))
        await asyncio.sleep(1.0)
