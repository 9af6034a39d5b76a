"""The reconciler on fakes: desire in, documents and events out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import Document, GpuInfo, ModelDocumentV1, NodeDocumentV1, PullProgress
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind
from cortex_contracts.events import Event
from cortex_contracts.rpc import LogsRequestV1
from cortex_kit.clock import SystemClock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.kv import Change
from cortex_orchestrator.domain.attempts import BackoffPolicy
from cortex_orchestrator.domain.engines import Engine
from cortex_orchestrator.domain.spec import Program
from cortex_orchestrator.handlers.jobs import Jobs, JobSettings
from cortex_orchestrator.handlers.logs import read_logs
from cortex_orchestrator.handlers.node import NodeReporter, has_new_inventory, is_news
from cortex_orchestrator.handlers.reconcile import Reconciler, Timing, World
from cortex_orchestrator.handlers.report import Reporter
from cortex_orchestrator.handlers.specs import NodeProfile, SpecSource
from cortex_orchestrator.handlers.stop_engines import stop_engines
from cortex_orchestrator.ports import OnProgress

NODE = NodeId("testnode")


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

    async def publish(self, event: Event, *, aggregate_id: str, version: int = 0, event_id: str | None = None) -> None:
        self._reach()
        self.events.append(event)

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


class Stage:
    """Everything wired as in app.py, on fakes."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.models, self.replicas, self.lease = FakeView(), FakeView(), FakeLease()
        self.store, self.catalog = FakeStore(), FakeCatalog()
        self.connected = True
        clock = SystemClock()
        self.reporter = Reporter(self.store, self.store, clock, node=NODE, runtime=RuntimeKind.PROCESS, retry_s=0.01)
        backoff = BackoffPolicy(first_s=0.01, max_s=0.02)
        jobs = Jobs(runtime, self.reporter, clock, JobSettings(NODE, 0.0, backoff, lambda spec: {"KEY": spec.hash}))
        self.specs = SpecSource(self.catalog, NodeProfile(NODE, "/models"), clock)
        world = World(self.models, self.replicas, self.lease, lambda: self.connected, clock)
        self.reconciler = Reconciler(
            world, runtime, self.specs, self.reporter, jobs, Timing(resync_s=0.01, absence_grace_s=0.2)
        )
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self.tasks = [asyncio.ensure_future(self.reconciler.run()), asyncio.ensure_future(self.reporter.run())]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def until(self, check: Callable[[], Any]) -> Any:
        async with asyncio.timeout(5):
            while not (result := check()):
                assert not any(task.done() for task in self.tasks)
                await asyncio.sleep(0.005)
            return result

    async def rounds(self) -> None:
        """Long enough for several rounds."""
        await asyncio.sleep(0.06)

    def state(self) -> str | None:
        document = self.store.documents.get(REPLICA)
        return document.state if document else None


@pytest.fixture
async def stage(fake_runtime: Any) -> AsyncIterator[Stage]:
    made = Stage(fake_runtime)
    yield made
    await made.end()


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


async def started(stage: Stage) -> None:
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_wanted_model_becomes_a_started_document_with_an_endpoint(stage: Stage) -> None:
    await started(stage)
    document = stage.store.documents[REPLICA]
    assert document.endpoint == "http://127.0.0.1:1"
    assert document.container == f"llamacpp-model-{MODEL.id}-0"
    assert stage.store.history == [(REPLICA, "starting"), (REPLICA, "started")]
    await stage.until(lambda: stage.store.subjects() == ["container.created", "container.started"])
    assert stage.reconciler.readiness() is None


async def test_a_stopped_model_drains_stops_and_loses_its_document(stage: Stage) -> None:
    await started(stage)
    stage.models.items = {MODEL.id: MODEL.model_copy(update={"desired_state": DesiredState.STOPPED})}
    stage.reconciler.hint()
    await stage.until(lambda: REPLICA not in stage.store.documents)
    assert (REPLICA, "draining") in stage.store.history
    await stage.until(lambda: stage.store.subjects()[2:] == ["container.stopped", "container.removed"])
    assert stage.runtime.replicas == {}


async def test_a_crash_is_reported_and_the_engine_comes_back(stage: Stage) -> None:
    await started(stage)
    stage.runtime.lines = ("llama_model_load: error loading model: x",)
    stage.runtime.crash(REPLICA, 1)
    await stage.until(lambda: "container.failed" in stage.store.subjects())
    failed = next(event for event in stage.store.events if event.SUBJECT == "container.failed")
    assert failed.model_dump()["diagnosis"]["code"] == "load_failed"
    assert failed.model_dump()["exit_code"] == 1
    await stage.until(lambda: stage.state() == ReplicaState.STARTED and stage.store.documents[REPLICA].restarts == 1)


async def test_an_engine_that_keeps_crashing_is_tried_again_and_again(stage: Stage) -> None:
    stage.runtime.default_mode = "crash"
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.until(lambda: stage.store.subjects().count("container.failed") >= 3)
    failures = [event.model_dump() for event in stage.store.events if event.SUBJECT == "container.failed"]
    assert [failure["restarts"] for failure in failures[:3]] == [0, 1, 2]


async def test_a_start_that_is_refused_is_a_failure_with_a_next_attempt(stage: Stage) -> None:
    stage.runtime.refuse_start = DomainError("gpu_runtime_missing", "no GPU here")
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    assert stage.store.documents[REPLICA].reason == "no GPU here"
    stage.runtime.refuse_start = None
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_new_specification_replaces_the_engine(stage: Stage) -> None:
    await started(stage)
    old = stage.store.documents[REPLICA].spec_hash
    stage.models.items = {MODEL.id: MODEL.model_copy(update={"restart_generation": 1})}
    await stage.until(lambda: stage.state() == ReplicaState.STARTED and stage.store.documents[REPLICA].spec_hash != old)
    assert [call for call, _ in stage.runtime.calls].count("stop") == 1


async def test_an_empty_view_is_no_order_to_stop_until_the_grace_is_over(stage: Stage) -> None:
    await started(stage)
    stage.models.items = {}
    await stage.rounds()
    assert REPLICA in stage.runtime.replicas
    stage.models.items = {MODEL.id: MODEL}
    await stage.rounds()
    stage.models.items = {}
    await stage.until(lambda: not stage.runtime.replicas)


async def test_a_deletion_that_was_seen_happening_is_an_order(stage: Stage) -> None:
    await started(stage)
    stage.models.items = {}
    stage.reconciler.model_changed(Change(MODEL.id, MODEL, None, live=False))
    await stage.rounds()
    assert REPLICA in stage.runtime.replicas
    stage.reconciler.model_changed(Change(MODEL.id, MODEL, None))
    await stage.rounds()
    assert REPLICA not in stage.runtime.replicas


async def test_an_absence_that_a_disconnect_explains_never_counts(stage: Stage) -> None:
    await started(stage)
    stage.connected = False
    stage.models.items = {}
    for _ in range(5):
        await stage.rounds()
    assert REPLICA in stage.runtime.replicas


async def test_an_unsynced_view_costs_no_engine_and_the_engine_is_adopted(stage: Stage) -> None:
    await started(stage)
    successor = Stage(stage.runtime)
    await stage.end()
    successor.models.synced = False
    successor.begin()
    await successor.until(lambda: successor.state() == ReplicaState.STARTED)
    assert successor.store.subjects() == ["container.adopted"]
    assert REPLICA in stage.runtime.replicas
    await successor.end()


async def test_without_the_lease_nothing_is_touched(stage: Stage) -> None:
    stage.lease.held = False
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.rounds()
    assert stage.runtime.calls == []
    await stage.until(lambda: "lease" in (stage.reconciler.readiness() or ""))
    stage.lease.held = True
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_without_nats_a_crashed_engine_comes_back_and_the_news_follow(stage: Stage) -> None:
    await started(stage)
    stage.store.away, stage.connected = True, False
    first = stage.runtime.replicas[REPLICA].incarnation
    stage.runtime.crash(REPLICA, 9)
    await stage.until(
        lambda: REPLICA in stage.runtime.replicas and stage.runtime.replicas[REPLICA].incarnation != first
    )
    stage.store.away, stage.connected = False, True
    stage.store.documents.clear()
    stage.reconciler.reconnected()
    await stage.until(lambda: "container.failed" in stage.store.subjects() and stage.state() == ReplicaState.STARTED)


async def test_a_missing_program_is_reported_once_and_healed_without_a_hand(stage: Stage) -> None:
    stage.catalog.problem = DomainError("engine_missing", "install llama.cpp")
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.FAILED)
    await stage.rounds()
    assert stage.store.subjects() == ["container.failed"]
    stage.catalog.problem = None
    stage.specs.forget((EngineType.LLAMACPP, None))
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)


async def test_a_pull_shows_its_progress(stage: Stage) -> None:
    stage.catalog.gate = asyncio.Event()
    stage.models.items = {MODEL.id: MODEL}
    stage.begin()
    await stage.until(lambda: stage.state() == ReplicaState.PULLING)
    assert stage.store.documents[REPLICA].pull == PullProgress(current_bytes=1, total_bytes=2)
    await stage.until(lambda: stage.store.subjects() == ["container.pulling"])
    stage.catalog.gate.set()
    await stage.until(lambda: stage.state() == ReplicaState.STARTED)
    assert stage.catalog.pulls == 1


async def test_an_unreachable_runtime_makes_us_unready_and_changes_nothing(stage: Stage) -> None:
    await started(stage)
    before = dict(stage.store.documents)
    stage.runtime.unreachable = True
    await stage.until(lambda: stage.reconciler.readiness() == "the runtime is away")
    assert stage.store.documents == before
    stage.runtime.unreachable = False
    await stage.until(lambda: stage.reconciler.readiness() is None)


async def test_documents_left_by_a_predecessor_are_removed(stage: Stage) -> None:
    await started(stage)
    own = stage.store.documents[REPLICA]
    stage.replicas.items = {
        "gone-0": own.model_copy(update={"id": "gone-0"}),
        "else-0": own.model_copy(update={"id": "else-0", "node": "elsewhere"}),
        REPLICA: own,
    }
    stage.store.documents |= stage.replicas.items
    await stage.until(lambda: "gone-0" not in stage.store.documents)
    assert set(stage.store.documents) == {"else-0", REPLICA}


async def test_stop_engines_leaves_nothing_and_says_so(stage: Stage) -> None:
    await started(stage)
    said: list[str] = []
    assert await stop_engines(stage.runtime, 5, said.append)
    assert said == [f"stopped llamacpp-model-{MODEL.id}-0 (exit code 0)", f"removed llamacpp-model-{MODEL.id}-0"]
    assert await stop_engines(stage.runtime, 5, said.append)
    assert said[-1] == "no engines"


async def test_logs_are_read_of_known_replicas_only(stage: Stage) -> None:
    await started(stage)
    result = await read_logs(stage.runtime, LogsRequestV1(model_id=MODEL.id, tail=1))
    assert result.lines == ("mode x",)
    with pytest.raises(DomainError) as caught:
        await read_logs(stage.runtime, LogsRequestV1(model_id=MODEL.id, ordinal=1))
    assert caught.value.code == "replica_not_found"


def node(available: int = 80, gpus: int = 0) -> NodeDocumentV1:
    return NodeDocumentV1(
        id=NODE,
        hostname="h",
        runtime=RuntimeKind.PROCESS,
        cpu_count=2,
        memory_total=100,
        memory_available=available,
        gpus=tuple(
            GpuInfo(index=index, uuid=f"GPU-{index}", name="g", memory_total=1, memory_free=1) for index in range(gpus)
        ),
        aggregateversion=0,
    )


@pytest.mark.parametrize(
    ("old", "new", "news", "inventory"),
    [
        (None, node(), True, True),
        (node(), node(78), False, False),
        (node(), node(60), True, False),
        (node(), node(gpus=1), True, True),
    ],
)
def test_only_a_real_change_of_the_node_is_news(
    old: NodeDocumentV1 | None, new: NodeDocumentV1, news: bool, inventory: bool
) -> None:
    assert (is_news(old, new), has_new_inventory(old, new)) == (news, inventory)


async def test_the_node_is_written_when_the_lease_is_ours_and_again_after_a_reconnect() -> None:
    store = FakeStore()
    reporter = NodeReporter(node, store, store, FakeLease(), interval_s=0.01)
    task = asyncio.ensure_future(reporter.run())
    try:
        async with asyncio.timeout(5):
            while not store.events:
                await asyncio.sleep(0.005)
            first = store.documents[NODE].aggregateversion
            reporter.reconnected()
            while store.documents[NODE].aggregateversion == first:
                await asyncio.sleep(0.005)
    finally:
        task.cancel()


async def test_a_reply_with_logs_stays_within_a_message(stage: Stage) -> None:
    await started(stage)
    stage.runtime.lines = ("x" * 100_000,) * 5000
    result = await read_logs(stage.runtime, LogsRequestV1(model_id=MODEL.id, tail=5000))
    assert 0 < len(result.model_dump_json()) < 512 * 1024
