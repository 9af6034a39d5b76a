"""What is asked of engines that run: logs, one real request, readiness, load, whether they match the configuration."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import ModelState, ReplicaState, Verdict
from cortex_contracts.estimates import EstimateResultV1
from cortex_contracts.operations import DryRunResultV1, LogsChunkV1, TestRequestV1, TestResultV1
from cortex_contracts.rpc import LogsResultV1
from cortex_kit.errors import DomainError
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.versions import Expected
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.models import Changed, ModelService
from cortex_registry.handlers.models_editor import ModelEditor
from cortex_registry.handlers.observation import Observation, Observed
from cortex_registry.ports import EngineLogs


class Operations(Protocol):
    """Orchestrators and the health service, over request-reply."""

    async def dry_run(self, model: ModelDocumentV1, estimate: EstimateResultV1 | None) -> DryRunResultV1:
        """What would run.

        Raises:
            DomainError: with the orchestrator's code.
            UnavailableError: `orchestrator_unavailable`.
        """
        ...

    async def test(self, request: TestRequestV1) -> TestResultV1:
        """One real request.

        Raises:
            DomainError: 409 with the health service's code.
            UnavailableError: `health_unavailable`.
        """
        ...

    def follow(self, node: str, model_id: ModelId, ordinal: int, tail: int) -> AsyncGenerator[LogsChunkV1, None]:
        """An engine's log, live; see cortex_kit.log_follow. Errors as `EngineLogs.tail`, at the first step."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did. `outdated` names replicas that do not run as configured yet; None: nobody could tell."""

    changed: Changed
    outdated: tuple[int, ...] | None
    message: str


class ModelRuntime:
    """Errors: DomainError for the caller, UnavailableError to try again."""

    def __init__(
        self,
        editor: ModelEditor,
        service: ModelService,
        observation: Observation,
        logs: EngineLogs,
        operations: Operations,
    ) -> None:
        self._editor = editor
        self._service = service
        self._observation = observation
        self._logs = logs
        self._operations = operations

    async def logs(self, reference: str, *, ordinal: int, tail: int) -> LogsResultV1:
        """The last lines of one replica's engine; raises DomainError 404 `replica_not_found`."""
        replica = await self._replica(reference, ordinal)
        return await self._logs.tail(replica.node, replica.model_id, replica.ordinal, tail)

    async def replica(self, reference: str, ordinal: int) -> ReplicaDocumentV1:
        """What was observed of one replica; raises DomainError 404 `replica_not_found`."""
        return await self._replica(reference, ordinal)

    async def follow(self, reference: str, *, ordinal: int, tail: int) -> AsyncGenerator[LogsChunkV1, None]:
        """The log from the last `tail` lines on, live. Its first step has been taken: errors come from here.

        The caller closes it (`contextlib.aclosing`).
        """
        replica = await self._replica(reference, ordinal)
        chunks = self._operations.follow(replica.node, replica.model_id, replica.ordinal, tail)
        first = await anext(chunks)
        return _after(first, chunks)

    async def test(self, reference: str, *, ordinal: int | None, prompt: str | None) -> TestResultV1:
        """One small real request to a healthy replica.

        Raises:
            DomainError: 409 `no_healthy_replica`, naming the model's state.
            UnavailableError: `health_unavailable`.
        """
        model = await self._editor.find(reference)
        observed = self._observation.observe(model)
        healthy = [status for status in observed.replicas if status.verdict is not None]
        if not any(status.verdict and status.verdict.verdict is Verdict.HEALTHY for status in healthy):
            state = observed.state.state if observed.state is not None else "unknown"
            message = f"No replica of {model.document.served_model_name} is healthy: {state}, {observed.reason}."
            raise DomainError("no_healthy_replica", message, status=409, details={"state": str(state)})
        return await self._operations.test(TestRequestV1(model_id=model.id, ordinal=ordinal, prompt=prompt))

    async def apply(self, reference: str, caller: Caller, *, expected: Expected = None) -> Applied:
        """Make the running engines equal to the configuration: a stopped or failed model is started.

        A running one needs nothing: the orchestrator replaces what is outdated by itself, and this says what is.
        """
        changed = await self._service.start(reference, caller, expected=expected)
        model = changed.observed.model
        if "desired_state" in changed.fields or "restart_generation" in changed.fields:
            return Applied(changed, None, "The model is being started.")
        try:
            wanted = await self._operations.dry_run(model.document, None)
        except (DomainError, UnavailableError) as error:
            return Applied(changed, None, f"Whether the engines are up to date is not known: {error.message}")
        running = [status.replica for status in changed.observed.replicas]
        outdated = tuple(replica.ordinal for replica in running if replica.spec_hash != wanted.spec_hash)
        message = f"Replicas {outdated} are being replaced." if outdated else "Every replica runs as configured."
        return Applied(changed, outdated, message)

    async def metrics(self) -> list[Observed]:
        """Every model that is not archived, with its state and load."""
        return await self._service.list_all()

    async def _replica(self, reference: str, ordinal: int) -> ReplicaDocumentV1:
        model = await self._editor.find(reference)
        replicas = [status.replica for status in self._observation.replicas_of(model.id)]
        replica = next((replica for replica in replicas if replica.ordinal == ordinal), None)
        if replica is None and ordinal == 0 and replicas:
            replica = replicas[0]  # after a rolling change ordinals need not begin at 0
        if replica is None:
            message = f"{model.document.served_model_name} has no replica {ordinal}: nothing has run yet."
            raise DomainError("replica_not_found", message, status=404)
        return replica


async def _after(first: LogsChunkV1, chunks: AsyncGenerator[LogsChunkV1, None]) -> AsyncGenerator[LogsChunkV1, None]:
    try:
        yield first
        if first.ended is None:
            async for chunk in chunks:
                yield chunk
    finally:
        await chunks.aclose()


def is_ready(observed: Observed) -> bool:
    """Whether requests are answered now."""
    return observed.state is not None and observed.state.state in (ModelState.RUNNING, ModelState.DEGRADED)


def serving(replicas: Sequence[ReplicaDocumentV1]) -> int:
    """How many engines are up, healthy or not."""
    return sum(replica.state is ReplicaState.STARTED for replica in replicas)
