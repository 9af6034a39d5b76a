"""Which on-demand models are awake. Memory of this process: a successor takes a running model for one in use."""

from collections.abc import Mapping
from datetime import datetime

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import EngineLoad, ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.demand import Usage, demanded, observed, recent_demands, sleeps_at

log = get_logger()


class DemandBook:
    """Remembers when each on-demand model was used last."""

    def __init__(self) -> None:
        self._usage: dict[ModelId, Usage] = {}

    def demanded(self, model_id: ModelId, at: datetime, now: datetime) -> None:
        """A request came for a model that does not run."""
        self._usage[model_id] = demanded(self._usage.get(model_id), min(at, now), now)

    def put_to_sleep(self, model_id: ModelId) -> None:
        """The model gives way to another one; the next request wakes it again."""
        usage = self._usage.get(model_id)
        if usage is not None:
            self._usage[model_id] = Usage(datetime.min.replace(tzinfo=usage.used_at.tzinfo), demands=usage.demands)

    def look(
        self,
        models: Mapping[str, ModelDocumentV1],
        running: Mapping[ModelId, Mapping[ReplicaId, EngineLoad | None]],
        now: datetime,
    ) -> tuple[dict[ModelId, str], datetime | None]:
        """The models that are asleep, each with a reason, and when the next one falls asleep.

        `running` holds the replicas that run and are not being stopped.
        """
        asleep: dict[ModelId, str] = {}
        moments: list[datetime] = []
        for model in models.values():
            if model.lifecycle is not Lifecycle.ON_DEMAND or model.desired_state is not DesiredState.RUNNING:
                continue
            if model.id in running:
                self._usage[model.id] = observed(self._usage.get(model.id), running[model.id], now)
            usage = self._usage.get(model.id)
            moment = sleeps_at(usage, model.idle_ttl_s) if usage is not None else now
            if moment <= now:
                asleep[model.id] = "no request came for it for a while; the next one starts it again"
            else:
                moments.append(moment)
        for gone in self._usage.keys() - models.keys():
            del self._usage[gone]
        return asleep, min(moments, default=None)

    def usage(self, model_id: ModelId) -> Usage | None:
        return self._usage.get(model_id)

    def recent_demands(self, model_id: ModelId, now: datetime) -> int:
        """In the last hour."""
        return recent_demands(self._usage.get(model_id), now)

    def clear(self) -> None:
        """Somebody else decides now."""
        self._usage.clear()
