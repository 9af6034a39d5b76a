"""Composition root of the orchestrator."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cortex_contracts.base import NodeId
from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import RuntimeKind
from cortex_contracts.streams import MODELS, NODES, ORCHESTRATOR_DEMANDED, REPLICAS, VERDICTS
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.errors import DomainError, PermanentError
from cortex_kit.events import EventPublisher
from cortex_kit.kv import Change, KVStore, KVView
from cortex_kit.lease import Lease
from cortex_kit.ops import ops_app
from cortex_kit.runner import Service
from cortex_kit.secrets import engine_api_key, key_fingerprint, unseal
from cortex_orchestrator.adapters.estimates import RpcEstimates
from cortex_orchestrator.adapters.machine import MeasuredMachine, describe, gpu_probe
from cortex_orchestrator.adapters.sender import sender
from cortex_orchestrator.domain.attempts import BackoffPolicy
from cortex_orchestrator.domain.spec import ContainerSpec, Mount
from cortex_orchestrator.entrypoints.doctor import bind_doctor
from cortex_orchestrator.entrypoints.dry_run import bind_dry_runs
from cortex_orchestrator.entrypoints.events import bind, bind_demands, bind_log_follows
from cortex_orchestrator.entrypoints.images import bind_images
from cortex_orchestrator.handlers.admission import Admission
from cortex_orchestrator.handlers.asks import Asks
from cortex_orchestrator.handlers.causes import Causes
from cortex_orchestrator.handlers.demand import DemandBook
from cortex_orchestrator.handlers.doctor import Doctor
from cortex_orchestrator.handlers.drain import Drain, DrainSettings
from cortex_orchestrator.handlers.dry_run import DryRuns
from cortex_orchestrator.handlers.health import HealthBook
from cortex_orchestrator.handlers.jobs import Jobs, JobSettings
from cortex_orchestrator.handlers.ledger import Ledger
from cortex_orchestrator.handlers.log_follows import FollowSettings, LogFollows
from cortex_orchestrator.handlers.memory import Memory
from cortex_orchestrator.handlers.node import NodeReporter
from cortex_orchestrator.handlers.reconcile import Parts, Reconciler
from cortex_orchestrator.handlers.report import Place, Reporter
from cortex_orchestrator.handlers.specs import NodeProfile, SpecSource
from cortex_orchestrator.handlers.wake import Waker
from cortex_orchestrator.handlers.world import Timing, World
from cortex_orchestrator.ports import EngineRuntime, GpuProbe
from cortex_orchestrator.settings import Settings
from cortex_orchestrator.wiring import Engines, new_engines
from cortex_orchestrator.wiring_doctor import new_doctor
from cortex_orchestrator.wiring_images import new_images

DRAIN_S = 2.0
MODELS_IN_CONTAINER = "/models"
HUB_CACHE_IN_CONTAINER = "/root/.cache/huggingface"


def new_runtime(settings: Settings) -> EngineRuntime:
    """The runtime that the settings name; also for the one-shot command."""
    return new_engines(settings).runtime


def _profile(settings: Settings, gpus: tuple[int, ...]) -> NodeProfile:
    node = NodeId(settings.node)
    if settings.runtime == "process":
        root = None if settings.models_dir is None else str(settings.models_dir.absolute())
        return NodeProfile(node, root, gpus=(), key_fingerprint=key_fingerprint(settings.secret_key))
    source = settings.models_host_dir or settings.models_dir
    mounts = () if source is None else (Mount(str(source.absolute()), MODELS_IN_CONTAINER),)
    return NodeProfile(
        node,
        None if source is None else MODELS_IN_CONTAINER,
        mounts=mounts,
        hub_cache=Mount(settings.hub_cache, HUB_CACHE_IN_CONTAINER, read_only=False),
        gpus=gpus,
        memory_bytes=settings.engine_memory_bytes,
        key_fingerprint=key_fingerprint(settings.secret_key),
    )


def _describe(node: NodeId, engines: Engines, gpus: GpuProbe, memory: Memory) -> NodeDocumentV1:
    added = {"engines": dict(engines.versions()), "promised_memory": memory.promised}
    return describe(node, engines.runtime.kind, gpus).model_copy(update=added)


class Secrets:
    """What an engine gets by its environment and nobody else gets to see."""

    def __init__(self, settings: Settings, models: KVView[ModelDocumentV1]) -> None:
        self._key = settings.secret_key
        self._old_keys = settings.secret_keys_old
        self._models = models

    def of(self, spec: ContainerSpec) -> Mapping[str, str]:
        """The engine's own API key, and the model's Hugging Face token if it has one.

        Raises:
            DomainError: the token does not open with our key.
        """
        environment = {spec.command.api_key_env: engine_api_key(self._key, spec.replica_id, spec.hash)}
        model = self._models.items.get(spec.model_id)
        if model is not None and model.hf_token_sealed is not None:
            try:
                environment["HF_TOKEN"] = unseal(self._key, model.hf_token_sealed, self._old_keys)
            except PermanentError as error:
                raise DomainError("secret_unreadable", f"the model's Hugging Face token: {error}") from error
        return environment


@dataclass(frozen=True, slots=True)
class _Parts:
    """What lives as long as the service."""

    bus: Bus
    models: KVView[ModelDocumentV1]
    replicas: KVView[ReplicaDocumentV1]
    verdicts: KVView[VerdictDocumentV1]
    lease: Lease
    runtime: EngineRuntime
    reporter: Reporter
    reconciler: Reconciler
    node: NodeReporter
    waker: Waker
    dry_runs: DryRuns
    doctor: Doctor


def _wire(settings: Settings) -> _Parts:
    node = NodeId(settings.node)
    clock = SystemClock()
    bus = Bus(settings.nats_url, name=f"orchestrator-{settings.instance}")
    models = KVView(bus, MODELS, ModelDocumentV1)
    replicas = KVView(bus, REPLICAS, ReplicaDocumentV1)
    verdicts = KVView(bus, VERDICTS, VerdictDocumentV1)
    lease = Lease(bus, f"orchestrator.{node}", holder=settings.instance, ttl_s=settings.lease_ttl_s)
    events = EventPublisher(bus, source=f"cortex/orchestrator/{settings.instance}", clock=clock)
    engines = new_engines(settings)
    runtime = engines.runtime
    gpus = gpu_probe()
    reporter = Reporter(
        KVStore[ReplicaDocumentV1](bus, REPLICAS),
        events,
        clock,
        place=Place(node, runtime.kind),
        causes=Causes(lambda: models.items, lambda: replicas.items),
    )
    backoff = BackoffPolicy(settings.backoff_first_s, settings.backoff_max_s, settings.stable_s)
    world = World(models, replicas, verdicts, lease, lambda: bus.connected, clock)
    drain = Drain(verdicts, clock, DrainSettings(settings.drain_s, settings.drain_blind_s))
    jobs = Jobs(runtime, reporter, drain, clock, JobSettings(node, backoff, Secrets(settings, models).of))
    profile = _profile(settings, tuple(gpu.index for gpu in gpus.gpus()))
    specs = SpecSource(engines.catalog, profile, clock)
    demand = DemandBook()
    look_again = asyncio.Event()
    asks = Asks(RpcEstimates(bus, timeout_s=settings.estimate_timeout_s), clock, look_again.set)
    ledger = Ledger(asks)
    # The ledger is of this machine: on a swarm it can only warn.
    enforce = settings.placement == "enforce" and runtime.kind is not RuntimeKind.SWARM
    admission = Admission(asks, ledger, node, enforce=enforce)
    probe = MeasuredMachine(gpus, host_reserve=settings.host_memory_reserve_bytes)
    memory = Memory(probe, runtime, asks, ledger, admission)
    parts = Parts(specs, reporter, jobs, HealthBook(world, reporter), demand, memory)
    timing = Timing(settings.resync_s, settings.absence_grace_s)
    reconciler = Reconciler(world, runtime, parts, timing, look_again)
    waker = Waker(world, demand, reporter, reconciler.hint)
    node_store = KVStore[NodeDocumentV1](bus, NODES)
    node_reporter = NodeReporter(lambda: _describe(node, engines, gpus, memory), node_store, events, lease)
    dry_runs = DryRuns(engines.catalog, profile, admission)
    doctor = new_doctor(settings, engines.catalog, gpus, clock)
    return _Parts(
        bus, models, replicas, verdicts, lease, runtime, reporter, reconciler, node_reporter, waker, dry_runs, doctor
    )


@asynccontextmanager
async def build(settings: Settings) -> AsyncGenerator[Service]:
    """Wire the service. Engines outlive it: nothing here stops one."""
    parts = _wire(settings)
    broker = new_broker(settings.nats_url, name=f"orchestrator-rpc-{settings.instance}")
    bind(broker, parts.runtime, NodeId(settings.node))
    bind_doctor(broker, parts.doctor, NodeId(settings.node))
    bind_images(broker, new_images(settings), NodeId(settings.node))
    send = sender(parts.bus)
    follows = LogFollows(parts.runtime, send, parts.lease, FollowSettings(max_follows=settings.log_follows))
    bind_log_follows(broker, follows, NodeId(settings.node), send)

    demands = new_broker(settings.nats_url, name=f"orchestrator-events-{settings.instance}")
    bind_demands(demands, parts.waker)
    bind_dry_runs(demands, parts.dry_runs)

    async def consume() -> None:
        await parts.lease.wait_held()  # a stand-by must not take demands from the instance that acts
        await run_broker(demands, parts.bus, [ORCHESTRATOR_DEMANDED])

    def on_verdict(change: Change[VerdictDocumentV1]) -> None:
        if change.old is None or change.new is None or change.old.verdict is not change.new.verdict:
            parts.reconciler.hint()

    async def on_reconnect() -> None:
        parts.reconciler.reconnected()
        parts.node.reconnected()

    async def drain() -> None:
        """Let the last reports out, take leave of those who read logs; the engines stay."""
        await follows.close()
        await parts.reporter.flushed(DRAIN_S)

    parts.models.on_change(parts.reconciler.model_changed)
    parts.verdicts.on_change(on_verdict)
    parts.bus.on_reconnect(on_reconnect)
    checked = {"nats": parts.bus, "models": parts.models, "replicas": parts.replicas, "reconciler": parts.reconciler}
    readiness = {name: part.readiness for name, part in checked.items()}
    tasks = {
        "bus": parts.bus.run,
        "models": parts.models.run,
        "replicas": parts.replicas.run,
        "verdicts": parts.verdicts.run,
        "lease": parts.lease.run,
        "reporter": parts.reporter.run,
        "reconciler": parts.reconciler.run,
        "node": parts.node.run,
        "log follows": follows.run,
        "demands": consume,
        "broker": lambda: run_broker(broker, parts.bus),
    }
    try:
        yield Service("orchestrator", ops_app("Cortex orchestrator", readiness), tasks, drain)
    finally:
        await parts.runtime.close()
