"""Handlers against fakes: conflicts, announcements, usage batches."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import ModelState
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.rpc import InspectResultV1
from cortex_kit.clock import SystemClock
from cortex_kit.errors import DomainError, PermanentError, TransientError
from cortex_registry.domain.identity import ROOT, Caller
from cortex_registry.domain.model import Model
from cortex_registry.domain.state import Projected
from cortex_registry.domain.submission import Submission, parse_submission
from cortex_registry.handlers.models import ModelService
from cortex_registry.handlers.models_editor import ModelEditor, ModelRules
from cortex_registry.handlers.observation import Observation
from cortex_registry.handlers.projector import Projector, Views
from cortex_registry.handlers.usage import BatchRules, UsageBatcher
from cortex_registry.ports import Act

CALLER = Caller(ROOT)
RULES = ModelRules(SecretStr("x" * 32), ("vllm",), None)


@dataclass
class View:
    items: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    def readiness(self) -> str | None:
        return self.reason


@dataclass
class Models:
    """ModelRepository and Inspector."""

    rows: dict[str, Model] = field(default_factory=dict)
    conflicts: int = 0
    acts: list[Act] = field(default_factory=list)

    async def find(self, reference: str) -> Model | None:
        return next((row for row in self.rows.values() if reference in (row.id, *row.names)), None)

    async def list_all(self, *, archived: bool = False) -> Sequence[Model]:
        return [row for row in self.rows.values() if archived or row.archived_at is None]

    async def write_all(self, new: Sequence[tuple[Model, Act]], changed: Sequence[tuple[Model, Act]]) -> bool:
        raise AssertionError(new, changed)

    async def add(self, model: Model, act: Act) -> None:
        self.rows[model.id] = model
        self.acts.append(act)

    async def replace(self, model: Model, act: Act) -> bool:
        if self.conflicts > 0:
            self.conflicts -= 1
            old = self.rows[model.id]
            document = old.document.model_copy(update={"aggregateversion": old.version + 1, "replicas": 7})
            self.rows[model.id] = Model(document, old.created_at, old.updated_at, old.desired_since)
            return False
        assert model.version == self.rows[model.id].version + 1
        self.rows[model.id] = model
        self.acts.append(act)
        return True

    async def remove(self, model: Model, act: Act) -> bool:
        del self.rows[model.id]
        return True

    async def inspect(self, path: str) -> InspectResultV1:
        raise AssertionError(path)


def service(models: Models, replicas: View | None = None) -> ModelService:
    observation = Observation(replicas or View(), View(), View())
    return ModelService(ModelEditor(models, models, rules=RULES, clock=SystemClock()), observation)


def submission(**fields: Any) -> Submission:
    return parse_submission(fields)


async def test_a_change_that_lost_a_race_is_made_again_upon_the_other() -> None:
    models = Models()
    made = await service(models).create(submission(name="m", repo_id="a/b"), CALLER)
    models.conflicts = 2
    after = await service(models).update("m", {"tp_size": 2}, CALLER)
    document = after.observed.model.document
    assert (document.aggregateversion, document.replicas) == (4, 7)
    assert document.vllm is not None
    assert document.vllm.tp_size == 2
    models.conflicts = 99
    with pytest.raises(DomainError) as caught:
        await service(models).start(made.observed.model.id, CALLER)
    assert (caught.value.code, caught.value.status) == ("conflict", 409)


async def test_an_engine_that_is_not_offered_is_refused() -> None:
    with pytest.raises(DomainError) as caught:
        await service(Models()).create(submission(name="m", engine_type="llamacpp", local_path="m.gguf"), CALLER)
    assert caught.value.code == "engine_not_available"
    assert "CORTEX_ENGINES" in caught.value.message


async def test_no_state_is_claimed_before_anything_could_be_observed() -> None:
    made = await service(Models(), View(reason="bucket replicas has not been read yet")).create(
        submission(name="m", repo_id="a/b"), CALLER
    )
    assert made.observed.state is None
    assert "not observed yet" in made.observed.reason


@dataclass
class Ledger:
    """Announcements."""

    states: dict[ModelId, ModelState] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    away: int = 0

    async def load(self) -> Mapping[ModelId, ModelState]:
        if self.away > 0:
            self.away -= 1
            raise TransientError("away")
        return dict(self.states)

    async def announce(self, model_id: ModelId, projected: Projected) -> bool:
        if self.states.get(model_id) is projected.state:
            return False
        self.states[model_id] = projected.state
        self.told.append((model_id, projected.state.value))
        return True


class Lease:
    held = True

    async def wait_held(self) -> None:
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_state_is_announced_once_and_only_when_all_was_read() -> None:
    document = ModelDocumentV1(
        aggregateversion=1, id=ModelId("m"), name="m", served_model_name="m", engine_type="vllm", repo_id="a/b"
    )
    models, replicas = View({"m": document}), View(reason="not read")
    ledger = Ledger(states={ModelId("old"): ModelState.RUNNING})
    projector = Projector(Views(models, replicas, View()), ledger, Lease(), clock=SystemClock(), settle_s=0, grace_s=0)
    task = asyncio.ensure_future(projector.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert ledger.told == []
    replicas.reason = None
    projector.touch()
    await until(lambda: ledger.told == [("m", "stopped")])
    models.items = {"m": document.model_copy(update={"desired_state": "running"})}
    for _ in range(3):
        projector.touch()
        await asyncio.sleep(0.001)
    await until(lambda: ledger.told == [("m", "stopped"), ("m", "starting")])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def record(number: int) -> UsageRecordedV1:
    return UsageRecordedV1(
        request_id=str(number),
        key_id=KeyId("k"),
        model="m",
        route="/v1/chat/completions",
        stream=False,
        status=200,
        outcome="completed",
        duration_ms=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@dataclass
class UsageStore:
    """UsageRepository."""

    stored: dict[str, UsageRecordedV1] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    touched: list[dict[str, datetime]] = field(default_factory=list)
    away: bool = False
    poison: frozenset[str] = frozenset()

    async def insert(self, records: Sequence[UsageRecordedV1]) -> int:
        self.batches.append(len(records))
        await asyncio.sleep(0)
        if self.away:
            raise TransientError("away")
        if any(one.request_id in self.poison for one in records):
            raise PermanentError("poison")
        new = {one.request_id: one for one in records if one.request_id not in self.stored}
        self.stored |= new
        return len(new)

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        self.touched.append(dict(used))


async def add_all(store: UsageStore, count: int) -> list[BaseException | None]:
    batcher = UsageBatcher(store, BatchRules(4, 0.001), SystemClock())
    task = asyncio.ensure_future(batcher.run())
    results = await asyncio.gather(*(batcher.add(record(number)) for number in range(count)), return_exceptions=True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return results


async def test_records_that_arrive_together_are_inserted_together() -> None:
    store = UsageStore()
    assert await add_all(store, 10) == [None] * 10
    assert store.batches == [4, 4, 2]
    assert len(store.stored) == 10


async def test_while_the_database_is_away_nobody_is_told_that_a_record_is_stored() -> None:
    results = await add_all(UsageStore(away=True), 3)
    assert [type(result) for result in results] == [TransientError] * 3


async def test_one_record_that_can_never_be_stored_does_not_keep_the_others_out() -> None:
    store = UsageStore(poison=frozenset({"1"}))
    results = await add_all(store, 4)
    assert [type(result) for result in results] == [type(None), PermanentError, type(None), type(None)]
    assert set(store.stored) == {"0", "2", "3"}
