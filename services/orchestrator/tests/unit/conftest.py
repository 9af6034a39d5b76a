"""The reconciler wired on fakes, on a loop whose time jumps."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId, ReplicaId, replica_id
from cortex_contracts.documents import Document, EngineLoad, ModelDocumentV1, PullProgress, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind, Verdict
from cortex_contracts.estimates import (
    CPU_DEVICE,
    EstimateRequestV1,
    EstimateResultV1,
    MemoryV1,
    ProposalV1,
)
from cortex_contracts.events import Event
from cortex_kit.errors import TransientError
from cortex_kit.events import Origin
from cortex_orchestrator.domain.attempts import BackoffPolicy
from cortex_orchestrator.domain.engines import Engine
from cortex_orchestrator.domain.placement import GIB, Machine
from cortex_orchestrator.domain.spec import Program
from cortex_orchestrator.handlers.admission import Admission
from cortex_orchestrator.handlers.asks import Asks
from cortex_orchestrator.handlers.causes import Causes
from cortex_orchestrator.handlers.demand import DemandBook
from cortex_orchestrator.handlers.drain import Drain, DrainSettings
from cortex_orchestrator.handlers.health import HealthBook
from cortex_orchestrator.handlers.jobs import Jobs, JobSettings
from cortex_orchestrator.handlers.ledger import Ledger
from cortex_orchestrator.handlers.memory import Memory
from cortex_orchestrator.handlers.reconcile import Parts, Reconciler
from cortex_orchestrator.handlers.report import Place, Reporter
from cortex_orchestrator.handlers.specs import NodeProfile, SpecSource
from cortex_orchestrator.handlers.wake import Waker
from cortex_orchestrator.handlers.world import Timing, World
from cortex_orchestrator.ports import OnProgress
from cortex_testing.virtual_time import LoopClock, VirtualTimeLoop

NODE = NodeId("testnode")
MODEL = ModelDocumentV1(
    id=ModelId("m1"),
    name="M",
    served_model_name="m",
    engine_type=EngineType.LLAMACPP,
    local_path="m.gguf",
    desired_state=DesiredState.RUNNING,
    aggregateversion=1,
)
REPLICA = replica_id(MODEL.id, 0)


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, type[VirtualTimeLoop]]:
    """Nothing here waits for the real time."""
    return {"virtual": VirtualTimeLoop}


@dataclass
class FakeView:
    items: dict[str, Any] = field(default_factory=dict)
    synced: bool = True


@dataclass
class FakeLease:
    held: bool = True


@dataclass
class FakeStore:
    """KV and event stream in one; away when told."""

    documents: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    origins: list[tuple[str, Origin]] = field(default_factory=list)
    """Event id and origin, in the order of `events`."""
    away: bool = False

    async def put(self, key: str, document: Document) -> int:
        self._reach()
        self.documents[key] = document
        self.history.append((key, str(getattr(document, "state", ""))))
        return len(self.history)

    async def delete(self, key: str) -> None:
        self._reach()
        self.documents.pop(key, None)
        self.history.append((key, "deleted"))

    async def publish(
        self,
        event: Event,
        *,
        aggregate_id: str,
        version: int = 0,
        event_id: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        self._reach()
        self.events.append(event)
        self.origins.append((event_id or "", origin or Origin()))

    def _reach(self) -> None:
        if self.away:
            raise TransientError("away")

    def subjects(self) -> list[str]:
        return [event.SUBJECT for event in self.events]


@dataclass
class FakeCatalog:
    problem: Exception | None = None
    pulls: int = 0
    gate: asyncio.Event | None = None

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        if self.gate is not None:
            self.pulls += 1
            on_progress("image:1", PullProgress(current_bytes=1, total_bytes=2))
            await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return Program("/bin/engine")


@dataclass
class FakeMachine:
    machine: Machine = field(default_factory=lambda: Machine(50 * GIB, 50 * GIB))

    async def measure(self) -> Machine:
        return self.machine


@dataclass
class FakeEstimator:
    """Host bytes by path; nobody answers for others."""

    host: dict[str, int] = field(default_factory=dict[str, int])
    gpu: dict[str, int] = field(default_factory=dict[str, int])
    proposals: tuple[ProposalV1, ...] = ()
    requests: list[EstimateRequestV1] = field(default_factory=list[EstimateRequestV1])

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        self.requests.append(request)
        if request.path not in self.host:
            raise TransientError("no inspector")
        host, gpu = self.host[request.path], self.gpu.get(request.path, 0) if request.devices else 0
        devices = [MemoryV1(device=CPU_DEVICE, weights=0, kv=host, compute=0, total=host)]
        if gpu:
            devices.append(MemoryV1(device="GPU", weights=gpu, kv=0, compute=0, total=gpu, layers=10))
        return EstimateResultV1(
            path=request.path,
            engine_type=request.engine_type,
            known=True,
            devices=tuple(devices),
            proposals=self.proposals if request.search else (),
        )


class Stage:
    """Everything wired as in app.py, on fakes."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        runtime.now = LoopClock().now
        self.model, self.replica_id = MODEL, REPLICA
        self.models, self.replicas, self.verdicts, self.lease = FakeView(), FakeView(), FakeView(), FakeLease()
        self.store, self.catalog = FakeStore(), FakeCatalog()
        self.connected = True
        self.versions = itertools.count(1)
        clock = LoopClock()
        causes = Causes(lambda: self.models.items, lambda: self.replicas.items)
        self.reporter = Reporter(
            self.store, self.store, clock, place=Place(NODE, RuntimeKind.PROCESS), causes=causes, retry_s=0.01
        )
        backoff = BackoffPolicy(first_s=0.01, max_s=0.02)
        drain = Drain(self.verdicts, clock, DrainSettings(0.5, 3.0))
        jobs = Jobs(runtime, self.reporter, drain, clock, JobSettings(NODE, backoff, lambda spec: {"KEY": spec.hash}))
        self.specs = SpecSource(self.catalog, NodeProfile(NODE, "/models"), clock)
        world = World(self.models, self.replicas, self.verdicts, self.lease, lambda: self.connected, clock)
        self.health, self.demand = HealthBook(world, self.reporter), DemandBook()
        self.probe, self.estimator, hinted = FakeMachine(), FakeEstimator(), asyncio.Event()
        asks = Asks(self.estimator, clock, hinted.set)
        self.ledger = Ledger(asks)
        self.admission = Admission(asks, self.ledger, NODE)
        self.memory = Memory(self.probe, runtime, asks, self.ledger, self.admission)
        parts = Parts(self.specs, self.reporter, jobs, self.health, self.demand, self.memory)
        self.reconciler = Reconciler(world, runtime, parts, Timing(resync_s=0.5, absence_grace_s=5), hinted)
        self.waker = Waker(world, self.demand, self.reporter, self.reconciler.hint)
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self.tasks = [asyncio.ensure_future(self.reconciler.run()), asyncio.ensure_future(self.reporter.run())]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def until(self, check: Callable[[], Any]) -> Any:
        async with asyncio.timeout(3600):
            while not (result := check()):
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
            return result

    async def rounds(self) -> None:
        """Long enough for several rounds."""
        await asyncio.sleep(1.2)

    def state(self, ordinal: int = 0) -> str | None:
        document = self.store.documents.get(replica_id(self.model.id, ordinal))
        return document.state if document else None

    def state_of(self, replica: str) -> str:
        return str(self.store.documents[replica].state)

    def subjects(self, *without: str) -> list[str]:
        return [subject for subject in self.store.subjects() if subject not in without]

    def room(self) -> None:
        """There is room for anything."""
        self.estimator.host = {"m.gguf": GIB}

    def change(self, **changes: Any) -> None:
        """Change the model's document and hint, as its view would."""
        self.model = self.model.model_copy(update=changes)
        self.models.items = {self.model.id: self.model}
        self.reconciler.hint()

    async def started(self) -> None:
        self.models.items = {self.model.id: self.model}
        self.begin()
        await self.until(lambda: self.state() == ReplicaState.STARTED)

    def judge(self, verdict: Verdict, replica: ReplicaId = REPLICA, **load: Any) -> None:
        """Health says this of the replica's present run."""
        document = self.store.documents[replica]
        self.verdicts.items = {
            **self.verdicts.items,
            replica: VerdictDocumentV1(
                aggregateversion=next(self.versions),
                replica_id=replica,
                model_id=document.model_id,
                spec_hash=document.spec_hash,
                endpoint=document.endpoint,
                verdict=verdict,
                since=LoopClock().now(),
                load=EngineLoad(**load),
            ),
        }
        self.reconciler.hint()


@pytest.fixture
async def stage(fake_runtime: Any) -> AsyncIterator[Stage]:
    made = Stage(fake_runtime)
    yield made
    await made.end()
