"""Prober and board with fakes: what is probed, written, announced, and when not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import ReplicaState, Verdict
from cortex_contracts.envelope import Envelope, parse_envelope
from cortex_contracts.events import Event, UpstreamHealthyV1, UpstreamUnhealthyV1
from cortex_health.board import MAX_WAITING_EVENTS, VerdictBoard
from cortex_health.domain.engine_metrics import EngineSample
from cortex_health.domain.verdicts import HealthState, Outcome, Policy, Probe, step, to_document
from cortex_health.handlers import Prober, World
from cortex_health.ports import ConflictError
from cortex_kit.errors import TransientError

START = datetime(2026, 1, 1, tzinfo=UTC)
OK, REFUSED, LOADING, BROKEN = (
    Probe(outcome, outcome.value) for outcome in (Outcome.OK, Outcome.REFUSED, Outcome.LOADING, Outcome.BROKEN)
)
SLOW = Policy(loading_interval_s=60, doubtful_interval_s=60, healthy_interval_s=60, unhealthy_interval_s=60)


class Clock:
    def __init__(self, world: "FakeWorld") -> None:
        self.world = world

    def now(self) -> datetime:
        return START + timedelta(seconds=10)

    def monotonic(self) -> float:
        return self.world.now


class FakeWorld:
    """Fakes of every port."""

    def __init__(self) -> None:
        self.live: dict[str, ReplicaDocumentV1] = {}
        self.bucket: dict[str, VerdictDocumentV1] = {}
        self.revisions: dict[str, int] = {}
        self.held = True
        self.before_us: set[str] = set()
        self.proof: Probe | None = None
        self.proofs = 0
        self.now = 0.0
        self.shown: set[str] = set()
        self.away = False
        self.answer = OK
        self.load: EngineLoad | None = None
        self.traffic: EngineLoad | None = None
        self.probes: list[str] = []
        self.writes: list[str] = []
        self.events: list[object] = []
        self.envelopes: list[Envelope[Event]] = []

    def replicas(self) -> Mapping[str, ReplicaDocumentV1]:
        return self.live

    def verdicts(self) -> Mapping[str, VerdictDocumentV1]:
        return dict(self.bucket)

    def synced(self) -> bool:
        return True

    async def probe(self, replica: ReplicaDocumentV1) -> Probe:
        self.probes.append(replica.id)
        return self.answer

    async def read_load(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        return self.load

    async def read_sample(self, replica: ReplicaDocumentV1) -> EngineSample | None:
        return EngineSample(self.traffic) if self.traffic is not None else None

    async def prove(self, replica: ReplicaDocumentV1) -> Probe | None:
        self.proofs += 1
        return self.proof

    async def get(self, key: str) -> tuple[VerdictDocumentV1 | None, int]:
        self._check()
        return self.bucket.get(key), self.revisions.get(key, 0)

    async def put(self, key: str, document: VerdictDocumentV1, revision: int) -> int:
        self._check()
        if revision != self.revisions.get(key, 0):
            raise ConflictError("another wrote")
        self.writes.append(f"put {document.verdict}")
        return self.write(key, document)

    def write(self, key: str, document: VerdictDocumentV1) -> int:
        """As another member would."""
        self.bucket[key] = document
        self.revisions[key] = self.revisions.get(key, 0) + 1
        return self.revisions[key]

    async def delete(self, key: str) -> None:
        self._check()
        self.bucket.pop(key, None)
        self.revisions[key] = self.revisions.get(key, 0) + 1
        self.writes.append("delete")

    @property
    def ready(self) -> bool:
        return True

    def mine(self, key: str) -> bool:
        return self.held

    def contest(self, key: str, other: str) -> bool:
        self.held = self.held and other not in self.before_us
        return other in self.before_us

    def show(self, replica: ReplicaDocumentV1, state: HealthState) -> None:
        self.shown.add(replica.id)

    def sampled(self, replica: ReplicaDocumentV1, sample: EngineSample | None) -> None:
        self.shown.add(replica.id)

    def drop(self, replica_id: ReplicaId) -> None:
        self.shown.discard(replica_id)

    async def publish_raw(self, subject: str, payload: bytes, event_id: str) -> None:
        self._check()
        self.envelopes.append(parse_envelope(payload))
        self.events.append(self.envelopes[-1].data)

    def _check(self) -> None:
        if self.away:
            raise TransientError("NATS is not connected")


class Rig:
    def __init__(self, policy: Policy = SLOW) -> None:
        self.world = FakeWorld()
        clock = Clock(self.world)
        self.board = VerdictBoard(self.world, self.world, clock, source="cortex/health/test", member="us")
        self.prober = Prober(World(self.world, self.world, self.world, self.world, clock), self.board, policy)

    def set(self, replica: ReplicaDocumentV1) -> None:
        self.world.live = {replica.id: replica}
        self.prober.notice()


async def settle() -> None:
    """Let every task run until all of them wait."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    tasks = [asyncio.ensure_future(rig.prober.run()), asyncio.ensure_future(rig.board.run())]
    yield rig
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def stored(replica: ReplicaDocumentV1, probe: Probe = OK) -> VerdictDocumentV1:
    state, _ = step(HealthState(started_at=START), probe, START + timedelta(seconds=1), SLOW)
    document = to_document(replica, state, 5)
    assert document is not None
    return document


async def test_a_started_replica_is_probed_and_its_verdict_written_and_announced(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    (document,) = rig.world.bucket.values()
    assert (document.verdict, document.spec_hash) == (Verdict.HEALTHY, "hash-1")
    assert document.aggregateversion > 0
    assert [type(event) for event in rig.world.events] == [UpstreamHealthyV1]


async def test_the_same_verdict_is_written_once(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    for _ in range(5):
        await settle()
        assert rig.prober.suspect(make_replica().id)
    await settle()
    assert len(rig.world.probes) == 6
    assert rig.world.writes == ["put healthy"]


async def test_a_suspicion_leads_to_a_probe_at_once(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    assert len(rig.world.probes) == 1
    assert rig.prober.suspect(make_replica().id)
    await settle()
    assert len(rig.world.probes) == 2
    assert not rig.prober.suspect("unknown")  # type: ignore[arg-type]


async def test_a_verdict_names_the_request_and_the_event_it_follows_from(rig: Rig, make_replica: Callable):
    replica = make_replica().model_copy(update={"correlation_id": "request-1", "causation_id": "started-event"})
    rig.set(replica)
    await settle()
    told = rig.world.envelopes[-1]
    assert (told.correlationid, told.causationid) == ("request-1", "started-event")
    verdict = rig.world.bucket[replica.id]
    assert (verdict.correlation_id, verdict.causation_id) == ("request-1", told.id)


async def test_failures_in_a_row_are_unhealthy_and_announced(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.world.answer = BROKEN
    for _ in range(3):
        assert rig.world.writes == ["put healthy"]
        rig.prober.suspect(make_replica().id)
        await settle()
    assert rig.world.writes == ["put healthy", "put unhealthy"]
    assert [type(event) for event in rig.world.events] == [UpstreamHealthyV1, UpstreamUnhealthyV1]


async def test_loading_is_written_but_not_announced(rig: Rig, make_replica: Callable):
    rig.world.answer = LOADING
    rig.set(make_replica())
    await settle()
    assert rig.world.writes == ["put loading"]
    assert rig.world.events == []


async def test_the_capacity_of_a_healthy_engine_is_added(rig: Rig, make_replica: Callable):
    rig.world.load = EngineLoad(slots_total=4)
    rig.set(make_replica())
    await settle()
    (document,) = rig.world.bucket.values()
    assert document.load.slots_total == 4


@pytest.mark.parametrize("state", [ReplicaState.FAILED, None])
async def test_a_replica_that_no_longer_runs_has_no_verdict(state, rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.world.live = {} if state is None else {make_replica().id: make_replica(state=state)}
    rig.prober.notice()
    await settle()
    assert rig.world.bucket == {}
    probes = len(rig.world.probes)
    assert not rig.prober.suspect(make_replica().id)
    await settle()
    assert len(rig.world.probes) == probes


async def test_a_draining_engine_is_asked_how_busy_it_is_and_judged_no_more(rig: Rig, make_replica: Callable):
    rig.world.traffic = EngineLoad(running=3, waiting=1, work_total=70)
    rig.set(make_replica())
    await settle()
    (document,) = rig.world.bucket.values()
    assert (document.load.running, document.load.waiting, document.load.work_total) == (3, 1, 70)
    assert document.load.sampled_at is None
    rig.world.answer, rig.world.traffic = REFUSED, EngineLoad(running=0, waiting=0, work_total=90)
    rig.set(make_replica(state=ReplicaState.DRAINING))
    await settle()
    (drained,) = rig.world.bucket.values()
    assert (drained.verdict, drained.load.running) == (Verdict.HEALTHY, 0)
    assert drained.load.sampled_at is not None
    assert len(rig.world.probes) == 1
    rig.set(make_replica(state=ReplicaState.DRAINING, endpoint="http://127.0.0.1:1"))
    await settle()
    assert rig.world.bucket == {}


@pytest.mark.parametrize("change", [{"spec_hash": "hash-2"}, {"endpoint": "http://127.0.0.1:1"}])
async def test_another_incarnation_starts_afresh(change, rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.world.answer = LOADING
    rig.set(make_replica(**change))
    await settle()
    assert [document.verdict for document in rig.world.bucket.values()] == [Verdict.LOADING]


async def test_an_adopted_engine_keeps_its_verdict_without_a_gap(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.set(make_replica(since=START + timedelta(seconds=20)))
    await settle()
    assert "delete" not in rig.world.writes
    assert len(rig.world.probes) == 2


async def test_a_restart_of_ours_writes_nothing_when_nothing_changed(rig: Rig, make_replica: Callable):
    rig.world.held = False
    rig.prober.notice()
    await settle()
    rig.world.bucket = {make_replica().id: stored(make_replica())}
    rig.world.held = True
    rig.set(make_replica())
    await settle()
    assert rig.world.probes
    assert rig.world.writes == []
    assert rig.world.events == []


async def test_verdicts_without_a_replica_are_removed(rig: Rig, make_replica: Callable):
    rig.world.bucket = {"gone": stored(make_replica())}
    rig.prober.notice()
    await settle()
    assert rig.world.bucket == {}


async def test_what_is_another_member_s_is_neither_probed_nor_written(rig: Rig, make_replica: Callable):
    rig.world.held = False
    rig.world.bucket = {"gone": stored(make_replica())}
    rig.set(make_replica())
    await settle()
    assert rig.world.probes == rig.world.writes == []
    assert not rig.prober.suspect(make_replica().id)
    assert rig.prober.runs(make_replica().id)
    assert rig.prober.probe_now(None) is None
    rig.world.held = True
    rig.prober.notice()
    await settle()
    assert rig.world.probes


async def test_a_replica_that_goes_to_another_member_keeps_its_verdict(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.world.held = False
    rig.prober.notice()
    await settle()
    assert rig.world.writes == ["put healthy"]
    assert len(rig.world.bucket) == 1
    assert rig.world.shown == set()


async def test_whoever_takes_over_goes_on_from_the_stored_verdict(rig: Rig, make_replica: Callable):
    replica = make_replica()
    rig.world.held = False
    rig.set(replica)
    await settle()
    rig.world.write(replica.id, stored(replica).model_copy(update={"prober": "other"}))
    rig.world.held = True
    rig.world.answer = REFUSED
    rig.prober.notice()
    await settle()
    assert (rig.world.writes, rig.world.events) == ([], [])  # one failed probe is no verdict, for nobody


async def test_a_member_that_finds_another_s_word_looks_again_before_it_speaks(rig: Rig, make_replica: Callable):
    replica = make_replica()
    rig.set(replica)
    await settle()
    said = {"prober": "other", "aggregateversion": 2**60, "load": EngineLoad(slots_total=9)}
    theirs = stored(replica).model_copy(update=said)
    rig.world.write(replica.id, theirs)
    rig.world.answer = REFUSED
    probes = len(rig.world.probes)
    rig.prober.suspect(replica.id)
    await settle()
    assert len(rig.world.probes) == probes + 2
    (document,) = rig.world.bucket.values()
    assert document.aggregateversion > theirs.aggregateversion
    assert (document.prober, document.load.slots_total) == ("us", 9)
    assert [type(event) for event in rig.world.events] == [UpstreamHealthyV1, UpstreamUnhealthyV1]


async def test_of_two_that_write_the_one_that_goes_before_stays(rig: Rig, make_replica: Callable):
    replica = make_replica()
    rig.world.before_us = {"other"}
    rig.set(replica)
    await settle()
    theirs = stored(replica, LOADING).model_copy(update={"prober": "other", "aggregateversion": 2**60})
    rig.world.write(replica.id, theirs)
    rig.world.answer = REFUSED
    for _ in range(3):
        rig.prober.suspect(replica.id)
        await settle()
    assert list(rig.world.bucket.values()) == [theirs]
    assert [type(event) for event in rig.world.events] == [UpstreamHealthyV1]
    probes = len(rig.world.probes)
    rig.prober.notice()
    await settle()
    assert len(rig.world.probes) == probes


async def test_a_write_whose_answer_was_lost_is_no_conflict(rig: Rig, make_replica: Callable, monkeypatch):
    monkeypatch.setattr("cortex_health.board.RETRY_S", 0)
    put = rig.world.put

    async def stored_but_not_confirmed(key: str, document: VerdictDocumentV1, revision: int) -> int:
        await put(key, document, revision)
        monkeypatch.setattr(rig.world, "put", put)
        raise TransientError("no answer")

    monkeypatch.setattr(rig.world, "put", stored_but_not_confirmed)
    rig.set(make_replica())
    await settle()
    assert rig.world.writes == ["put healthy"]
    assert len(rig.world.events) == 1


async def test_a_connection_refused_to_a_gateway_and_to_us_is_beyond_doubt(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    rig.world.answer = REFUSED
    rig.prober.suspect(make_replica().id)
    await settle()
    assert rig.world.writes == ["put healthy", "put unhealthy"]


async def test_whoever_takes_over_a_draining_engine_follows_its_drain(rig: Rig, make_replica: Callable):
    rig.world.traffic = EngineLoad(running=2, waiting=0, work_total=5)
    rig.world.write(make_replica().id, stored(make_replica()))
    rig.set(make_replica(state=ReplicaState.DRAINING, since=START + timedelta(seconds=99)))
    await settle()
    (document,) = rig.world.bucket.values()
    assert (document.verdict, document.load.running) == (Verdict.HEALTHY, 2)
    assert document.load.sampled_at is not None
    assert rig.world.probes == []


async def test_an_engine_that_did_nothing_for_long_is_sent_a_real_request(make_replica: Callable):
    rig = Rig(replace(SLOW, canary_interval_s=100))
    rig.world.proof, rig.world.traffic = OK, EngineLoad(running=0, waiting=0, work_total=1)
    tasks = [asyncio.ensure_future(rig.prober.run()), asyncio.ensure_future(rig.board.run())]

    async def look(now: float) -> int:
        rig.world.now = now
        rig.prober.suspect(make_replica().id)
        await settle()
        return rig.world.proofs

    rig.set(make_replica())
    await settle()
    assert rig.world.proofs == 1  # nobody believes an engine its first ok
    assert await look(50) == 1
    assert await look(101) == 2
    rig.world.traffic = EngineLoad(running=0, waiting=0, work_total=2)
    assert await look(190) == 2  # real traffic
    assert await look(260) == 2
    rig.world.proof = Probe(Outcome.TIMEOUT, "silent")
    assert await look(400) == 3
    assert rig.world.writes[-1] != "put unhealthy"
    await look(401)
    await look(402)
    assert rig.world.bucket[make_replica().id].verdict is Verdict.UNHEALTHY
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_after_a_reconnect_everything_is_written_again(rig: Rig, make_replica: Callable):
    rig.set(make_replica())
    await settle()
    first = next(iter(rig.world.bucket.values()))
    rig.world.bucket.clear()
    rig.world.revisions.clear()
    await rig.board.rewrite_all()
    await settle()
    again = next(iter(rig.world.bucket.values()))
    assert again.aggregateversion > first.aggregateversion
    assert again.model_copy(update={"aggregateversion": first.aggregateversion}) == first


async def test_what_happens_while_nats_is_away_is_written_when_it_is_back(
    rig: Rig, make_replica: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cortex_health.board.RETRY_S", 0)
    rig.set(make_replica())
    await settle()
    rig.world.away = True
    rig.world.answer = REFUSED
    for _ in range(3):
        rig.prober.suspect(make_replica().id)
        await settle()
    assert rig.world.writes == ["put healthy"]
    rig.world.away = False
    await settle()
    assert rig.world.writes == ["put healthy", "put unhealthy"]
    assert [type(event) for event in rig.world.events] == [UpstreamHealthyV1, UpstreamUnhealthyV1]


async def test_a_long_absence_keeps_the_newest_events(make_replica: Callable):
    rig = Rig()
    replica = make_replica()
    for streak in range(1, MAX_WAITING_EVENTS + 11):
        event = UpstreamHealthyV1(replica_id=replica.id, model_id=replica.model_id, reason="answers", streak=streak)
        rig.board.announce(event, replica.id)
    task = asyncio.ensure_future(rig.board.run())
    while len(rig.world.events) < MAX_WAITING_EVENTS:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    first = rig.world.events[0]
    assert isinstance(first, UpstreamHealthyV1)
    assert (len(rig.world.events), first.streak) == (MAX_WAITING_EVENTS, 11)
