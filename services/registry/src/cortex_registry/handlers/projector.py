"""Announces changes of the projected state as `model.state_changed`; one instance at a time does."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import ModelState
from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.state import Projected, cause_of, own_replicas, project
from cortex_registry.handlers.observation import ReplicaView, VerdictView
from cortex_registry.ports import Announcements

log = get_logger()
RETRY_S = 1.0
RESYNC_S = 30.0
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


class ModelView(Protocol):
    """Bucket `models`."""

    @property
    def items(self) -> Mapping[str, ModelDocumentV1]: ...

    def readiness(self) -> str | None: ...


class Leadership(Protocol):
    """A lease."""

    @property
    def held(self) -> bool: ...

    async def wait_held(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Views:
    """The buckets that the projection is made of."""

    models: ModelView
    replicas: ReplicaView
    verdicts: VerdictView

    def ready(self) -> bool:
        return not (self.models.readiness() or self.replicas.readiness() or self.verdicts.readiness())

    def project(self, now: datetime) -> dict[ModelId, Projected]:
        """The state of every model; `now` is the answer to "since when" where nothing has been observed."""
        by_model: dict[ModelId, list[ReplicaDocumentV1]] = {}
        for replica in self.replicas.items.values():
            by_model.setdefault(replica.model_id, []).append(replica)
        projected: dict[ModelId, Projected] = {}
        for model in self.models.items.values():
            own = own_replicas(model, by_model.get(model.id, []))
            judged = _verdicts_of(own, self.verdicts.items)
            state = project(model, own, judged, desired_since=_UNKNOWN)
            since = now if state.since == _UNKNOWN else state.since
            projected[model.id] = replace(state, since=since, cause=cause_of(model, own, judged))
        return projected


def _verdicts_of(
    replicas: list[ReplicaDocumentV1], verdicts: Mapping[str, VerdictDocumentV1]
) -> list[VerdictDocumentV1]:
    return [verdict for replica in replicas if (verdict := verdicts.get(replica.id)) is not None]


class Projector:
    """Gathers changes for a moment, then announces what is news. The ledger in Postgres decides what is."""

    def __init__(
        self,
        views: Views,
        ledger: Announcements,
        lease: Leadership,
        *,
        clock: Clock,
        settle_s: float,
        grace_s: float,
    ) -> None:
        self._views = views
        self._ledger = ledger
        self._lease = lease
        self._clock = clock
        self._settle_s = settle_s
        self._grace_s = grace_s
        self._changed = asyncio.Event()
        self._quiet_until = 0.0

    def touch(self, _change: object = None) -> None:
        """Something was observed; called by the views."""
        self._changed.set()

    async def hush(self) -> None:
        """NATS came back, perhaps empty: wait until the other services wrote again what they observe."""
        self._quiet_until = self._clock.monotonic() + self._grace_s
        self._changed.set()

    async def run(self) -> None:
        """A task of the service."""
        while True:
            await self._lease.wait_held()
            try:
                announced = dict(await self._ledger.load())
                await self._lead(announced)
            except TransientError as error:
                log.warning("projector_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _lead(self, announced: dict[ModelId, ModelState]) -> None:
        self._changed.set()
        while self._lease.held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_S):
                    await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(max(self._settle_s, self._quiet_until - self._clock.monotonic()))
            if self._lease.held and self._views.ready():
                await self._announce_news(announced)

    async def _announce_news(self, announced: dict[ModelId, ModelState]) -> None:
        projected = self._views.project(self._clock.now())
        for gone in announced.keys() - projected.keys():
            del announced[gone]
        for model_id, state in projected.items():
            if announced.get(model_id) is state.state:
                continue
            if await self._ledger.announce(model_id, state):
                metrics.STATE_CHANGES.labels(state.state.value).inc()
                log.info("model_state_changed", model_id=model_id, state=state.state.value, reason=state.reason)
            announced[model_id] = state.state
