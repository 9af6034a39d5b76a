"""One small real request to a replica, so that an administrator sees that a model answers, and how."""

from typing import Protocol

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import DesiredState, ReplicaState, Verdict
from cortex_contracts.external import endpoint_of
from cortex_contracts.operations import TestRequestV1, TestResultV1
from cortex_health.ports import Documents
from cortex_kit.errors import DomainError
from cortex_kit.logging import get_logger

log = get_logger()


class TestDocuments(Documents, Protocol):
    """Documents, and models."""

    __test__ = False

    def model(self, model_id: ModelId) -> ModelDocumentV1 | None:
        """The model, if there is one."""
        ...


class Requests(Protocol):
    """Sends real requests to engines."""

    async def send(
        self, replica: ReplicaDocumentV1, model: ModelDocumentV1, served_name: str, prompt: str | None
    ) -> TestResultV1:
        """One request within a deadline. A failure is a result; raises nothing."""
        ...


class Tester:
    """Chooses the replica."""

    def __init__(self, documents: TestDocuments, requests: Requests) -> None:
        self._documents = documents
        self._requests = requests

    async def test(self, request: TestRequestV1) -> TestResultV1:
        """Send the request; `ok` False is the engine's refusal.

        Raises:
            DomainError: `model_not_found`, `replica_not_found`, `no_healthy_replica`.
        """
        model = self._documents.model(request.model_id)
        if model is None:
            raise DomainError("model_not_found", f"health knows no model {request.model_id}", status=404)
        replica = self._choose(model, request.ordinal)
        result = await self._requests.send(replica, model, name_at(model, replica), request.prompt)
        log.info("model_tested", model_id=model.id, replica_id=replica.id, ok=result.ok, status=result.status)
        return result

    def _choose(self, model: ModelDocumentV1, ordinal: int | None) -> ReplicaDocumentV1:
        own = sorted(
            (replica for replica in self._documents.replicas().values() if replica.model_id == model.id),
            key=lambda replica: replica.ordinal,
        )
        if ordinal is not None:
            given = next((replica for replica in own if replica.ordinal == ordinal), None)
            if given is None or given.endpoint is None or given.state is not ReplicaState.STARTED:
                message = f"{model.served_model_name} has no replica {ordinal} that runs"
                raise DomainError("replica_not_found", message, status=404)
            return given
        healthy = next((replica for replica in own if self._healthy(replica)), None)
        if healthy is None:
            raise DomainError("no_healthy_replica", self._why(model, own), status=409)
        return healthy

    def _healthy(self, replica: ReplicaDocumentV1) -> bool:
        verdict = self._documents.verdicts().get(replica.id)
        return (
            replica.state is ReplicaState.STARTED
            and replica.endpoint is not None
            and verdict is not None
            and (verdict.spec_hash, verdict.verdict) == (replica.spec_hash, Verdict.HEALTHY)
        )

    def _why(self, model: ModelDocumentV1, own: list[ReplicaDocumentV1]) -> str:
        name = model.served_model_name
        if model.desired_state is DesiredState.STOPPED:
            return f"{name} is stopped: start it first"
        if not own:
            return f"{name} has no replica yet"
        verdict = self._documents.verdicts().get(own[0].id)
        reason = verdict.reason if verdict is not None else own[0].reason
        return f"no replica of {name} is healthy" + (f": {reason}" if reason else "")


def name_at(model: ModelDocumentV1, replica: ReplicaDocumentV1) -> str:
    """The name the model has there."""
    endpoint = endpoint_of(model, replica.id)
    return (endpoint.served_name if endpoint is not None else None) or model.served_model_name
