"""What follows from what: every event about a replica names the request it belongs to and the event before it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_kit.events import Origin


@dataclass(frozen=True, slots=True)
class _Chain:
    """The model's cause that was known when `last_event` was published."""

    correlation_id: str | None = None
    model_event: str | None = None
    last_event: str | None = None


def _no_models() -> Mapping[str, ModelDocumentV1]:
    return {}


def _no_replicas() -> Mapping[str, ReplicaDocumentV1]:
    return {}


class Causes:
    """A change of the model begins a new chain of events; what follows is caused by the event about the replica before.

    After a restart the chain goes on from the stored document. A model that is gone keeps the cause it had last.
    """

    def __init__(
        self,
        models: Callable[[], Mapping[str, ModelDocumentV1]] = _no_models,
        stored: Callable[[], Mapping[str, ReplicaDocumentV1]] = _no_replicas,
    ) -> None:
        self._models = models
        self._stored = stored
        self._chains: dict[ReplicaId, _Chain] = {}

    def origin(self, model_id: ModelId, replica_id: ReplicaId) -> Origin:
        """What the next event about the replica says of its origin."""
        chain = self._chain(model_id, replica_id)
        model = self._models().get(model_id)
        if model is None:
            return Origin(chain.correlation_id, chain.last_event or chain.model_event)
        is_new = model.causation_id is not None and model.causation_id != chain.model_event
        return Origin(model.correlation_id, model.causation_id if is_new else chain.last_event or model.causation_id)

    def happened(self, model_id: ModelId, replica_id: ReplicaId, event_id: str) -> None:
        """This event is the last one about the replica."""
        chain = self._chain(model_id, replica_id)
        model = self._models().get(model_id)
        if model is not None:
            chain = _Chain(model.correlation_id, model.causation_id)
        self._chains[replica_id] = _Chain(chain.correlation_id, chain.model_event, event_id)

    def last_event(self, model_id: ModelId, replica_id: ReplicaId) -> str | None:
        """Id of the event about the replica that came last, as far as it is known."""
        return self._chain(model_id, replica_id).last_event

    def gone(self, model_id: ModelId, replica_id: ReplicaId) -> None:
        """The replica is gone; its chain is kept while its model may start another one."""
        if model_id not in self._models():
            self._chains.pop(replica_id, None)

    def clear(self) -> None:
        """Somebody else goes on with all of them."""
        self._chains.clear()

    def _chain(self, model_id: ModelId, replica_id: ReplicaId) -> _Chain:
        known = self._chains.get(replica_id)
        if known is not None:
            return known
        document = self._stored().get(replica_id)
        if document is None or document.causation_id is None:
            return _Chain()
        model = self._models().get(model_id)
        same = model is not None and model.correlation_id == document.correlation_id
        return _Chain(
            document.correlation_id, model.causation_id if model is not None and same else None, document.causation_id
        )
