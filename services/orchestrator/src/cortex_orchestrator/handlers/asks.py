"""How much memory models ask for: estimates fetched in the background, corrected by what engines report."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.estimates import EstimateResultV1
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.asks import Reported, Room, ask_of, corrected, request_for
from cortex_orchestrator.domain.placement import Ask
from cortex_orchestrator.ports import MemoryEstimator

log = get_logger()

FRESH_S = 300.0
RETRY_S = 15.0
UNESTIMATED = "the model's files are not on this node, so that nobody can tell"


@dataclass(frozen=True, slots=True)
class _Known:
    """The last answer for a model, `good_until` on the monotonic clock."""

    key: str
    estimate: EstimateResultV1 | None
    note: str
    good_until: float
    proposals: tuple[str, ...] | None = None
    """Settings that would fit; None before anybody looked for them."""


class Asks:
    """One answer a model, asked for again when the model changes and now and then: its files may have.

    Nothing here waits. What an engine reported counts for its specification as long as this process lives; a successor
    reads it from the engine's log again.
    """

    def __init__(self, estimator: MemoryEstimator, clock: Clock, answered: Callable[[], None]) -> None:
        self._estimator = estimator
        self._clock = clock
        self._answered = answered
        self._known: dict[ModelId, _Known] = {}
        self._asking: set[ModelId] = set()
        self._searches: dict[ModelId, Room] = {}
        self._reported: dict[str, Reported] = {}

    def begin(self, models: Mapping[ModelId, ModelDocumentV1], group: asyncio.TaskGroup, *, has_gpus: bool) -> None:
        """Ask for every model that has no fresh answer; forget the models that are gone."""
        for gone in self._known.keys() - models.keys():
            del self._known[gone]
        now = self._clock.monotonic()
        for model in models.values():
            known = self._known.get(model.id)
            if model.id in self._asking:
                continue
            if known is None or known.key != _key(model, has_gpus) or now >= known.good_until:
                self._asking.add(model.id)
                group.create_task(self._ask(model, has_gpus=has_gpus))
            elif (room := self._searches.pop(model.id, None)) is not None and known.proposals is None:
                self._asking.add(model.id)
                group.create_task(self._search(model, known, room, has_gpus=has_gpus))

    def search(self, model: ModelDocumentV1, room: Room) -> bool:
        """Have settings looked for that fit into this room; False when that has been done or cannot be."""
        known = self._known.get(model.id)
        if known is None or known.estimate is None or known.proposals is not None:
            return False
        if model.id not in self._searches and model.id not in self._asking:
            self._searches[model.id] = room
            self._answered()
        return True

    def of(self, model: ModelDocumentV1, spec_hash: str | None, *, has_gpus: bool) -> Ask | None:
        """The ask of one replica; None while nobody has answered for the model as it is now."""
        known = self._known.get(model.id)
        if known is None or known.key != _key(model, has_gpus):
            return None
        ask = ask_of(model, known.estimate, known.note, has_gpus=has_gpus)
        ask = replace(ask, proposals=known.proposals or ())
        found = self._reported.get(spec_hash) if spec_hash is not None else None
        return ask if found is None else corrected(ask, known.estimate, found)

    def report(self, spec_hash: str, found: Reported) -> None:
        """An engine of this specification told what it took."""
        self._reported[spec_hash] = found

    def has_report(self, spec_hash: str) -> bool:
        """Whether an engine of this specification has told."""
        return spec_hash in self._reported

    def forget(self, keep: frozenset[str]) -> None:
        """Drop what engines reported, but of these specifications; called now and then."""
        self._reported = {spec_hash: found for spec_hash, found in self._reported.items() if spec_hash in keep}

    async def _search(self, model: ModelDocumentV1, known: _Known, room: Room, *, has_gpus: bool) -> None:
        request = request_for(model, has_gpus=has_gpus, room=room)
        proposals: tuple[str, ...] = ()
        try:
            if request is not None:
                found = await self._estimator.estimate(request)
                proposals = tuple(f"{one.setting} {one.value}: {one.reason}" for one in found.proposals)
        except (DomainError, TransientError) as error:
            log.info("search_failed", model_id=model.id, reason=str(error))
        finally:
            self._asking.discard(model.id)
        if self._known.get(model.id) is known:
            self._known[model.id] = replace(known, proposals=proposals)
        self._answered()

    async def _ask(self, model: ModelDocumentV1, *, has_gpus: bool) -> None:
        request = request_for(model, has_gpus=has_gpus)
        estimate: EstimateResultV1 | None = None
        note, fresh_s = UNESTIMATED, FRESH_S
        try:
            if request is not None:
                estimate = await self._estimator.estimate(request)
                note = ""
        except (DomainError, TransientError) as error:
            note, fresh_s = str(error), RETRY_S
            log.info("estimate_missing", model_id=model.id, reason=note)
        finally:
            self._asking.discard(model.id)
        until = self._clock.monotonic() + fresh_s
        self._known[model.id] = _Known(_key(model, has_gpus), estimate, note, until)
        self._answered()


def _key(model: ModelDocumentV1, has_gpus: bool) -> str:
    """What an estimate depends on."""
    request = request_for(model, has_gpus=has_gpus)
    return f"{model.engine_type} online" if request is None else request.model_dump_json(exclude_defaults=True)
