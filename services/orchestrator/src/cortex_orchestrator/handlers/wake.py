"""A request came for an on-demand model that does not run."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from cortex_contracts.base import ModelId
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.demand import DEFAULT_IDLE_S
from cortex_orchestrator.handlers.demand import DemandBook
from cortex_orchestrator.handlers.report import Reporter
from cortex_orchestrator.handlers.world import World

log = get_logger()

EFFECT_TIMEOUT_S = 10.0
POLL_S = 0.05


class Waker:
    """Idempotent: a demand that comes twice, late or for a model that runs changes nothing."""

    def __init__(self, world: World, book: DemandBook, reporter: Reporter, hint: Callable[[], None]) -> None:
        self._world = world
        self._book = book
        self._reporter = reporter
        self._hint = hint

    async def demanded(self, model_id: ModelId, at: datetime) -> None:
        """Returns once the model's start has begun or was refused, or when there is nothing to do.

        Raises:
            TransientError: another orchestrator acts, the model is not known yet, or nothing came of it in time.
        """
        if not self._world.lease.held:
            raise TransientError("another orchestrator acts")
        if not self._world.models.synced:
            raise TransientError("the models have not been read yet")
        model = self._world.models.items.get(model_id)
        now = self._world.clock.now()
        if model is None or model.lifecycle is not Lifecycle.ON_DEMAND:
            return
        if model.desired_state is not DesiredState.RUNNING or model.external or model.replicas == 0:
            log.info("demand_ignored", model_id=model_id, reason="the model is stopped")
            return
        if (now - at).total_seconds() > (model.idle_ttl_s or DEFAULT_IDLE_S):
            log.info("demand_ignored", model_id=model_id, reason="it is too old", at=at.isoformat())
            return
        self._book.demanded(model_id, at, now)
        self._hint()
        deadline = self._world.clock.monotonic() + EFFECT_TIMEOUT_S
        while self._world.clock.monotonic() < deadline:
            if any(document.model_id == model_id for document in self._reporter.documents.values()):
                return
            await asyncio.sleep(POLL_S)
        raise TransientError(f"the start of model {model_id} has not begun yet")
