"""What the orchestrator needs of the outside, in its own words."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import Document, GpuInfo, ModelDocumentV1, PullProgress
from cortex_contracts.enums import RuntimeKind
from cortex_contracts.estimates import EstimateRequestV1, EstimateResultV1
from cortex_contracts.events import Event
from cortex_contracts.operations import PlacementV1
from cortex_kit.events import Origin
from cortex_orchestrator.domain.doctor import DockerFacts
from cortex_orchestrator.domain.engines.base import Engine
from cortex_orchestrator.domain.observed import Exit, Observed
from cortex_orchestrator.domain.placement import Machine
from cortex_orchestrator.domain.spec import ContainerSpec, Program, StopPolicy

OnProgress = Callable[[str, PullProgress], None]
"""Called with the image and how far its pull has come."""
DocumentT_contra = TypeVar("DocumentT_contra", bound=Document, contravariant=True)


class EngineRuntime(Protocol):
    """Runs engines on this node and owns those that carry its labels.

    Every method has a deadline of its own. All raise TransientError while the runtime itself is unreachable.
    """

    @property
    def kind(self) -> RuntimeKind: ...

    async def list_owned(self) -> Sequence[Observed]:
        """Every engine of this node, running or not, whoever created it."""
        ...

    async def create(self, spec: ContainerSpec, secrets: Mapping[str, str], restarts: int = 0) -> Observed:
        """Make a replica ready to start. One that is there already with the same hash is returned as it is.

        `secrets` reach the engine by its environment only.

        Raises:
            DomainError: it cannot be made (`image_missing`, `name_taken`, ...).
        """
        ...

    async def start(self, replica_id: ReplicaId) -> Observed:
        """Start a created replica; returns it running, with its endpoint. Leaves nothing behind when that fails.

        Raises:
            DomainError: it cannot be started (`gpu_runtime_missing`, `not_created`, `engine_start_failed`, ...).
        """
        ...

    async def stop(self, replica_id: ReplicaId, policy: StopPolicy) -> Exit:
        """Stop it and wait for its end, at most a little longer than the policy's deadline. Idempotent."""
        ...

    async def remove(self, replica_id: ReplicaId) -> None:
        """Remove it, killing what still runs. Absence is success."""
        ...

    async def logs(self, replica_id: ReplicaId, tail: int) -> Sequence[str]:
        """The last lines of its output, oldest first; none when there is no such replica."""
        ...

    def follow(self, replica_id: ReplicaId, tail: int) -> AsyncGenerator[Sequence[str], None]:
        """The last `tail` lines, then every line as it is written, without a gap between the two, in batches.

        Ends with this run of the replica; at once when there is none. Waits for lines without a limit: whoever reads
        decides how long, and closes the generator. Raises TransientError when the runtime goes away meanwhile.
        """
        ...

    def watch(self) -> AsyncIterator[ReplicaId | None]:
        """Hints that something changed, for ever; None means anything may have."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads. Engines are left running."""
        ...


@dataclass(frozen=True, slots=True)
class Sight:
    """A program that was looked for; `present` False means that it has to be fetched first."""

    program: Program
    present: bool = True


class EngineCatalog(Protocol):
    """Finds the program of an engine on this node."""

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        """The program, fetched first if it has to be; may take minutes then. Answers from a cache when it can.

        Raises:
            DomainError: there is none, and the message says how to get one.
            TransientError: try again later.
        """
        ...

    async def look(self, engine: Engine, image: str | None) -> Sight:
        """The program as it is here now: fetches nothing, starts no model; may ask a build for its options.

        Raises:
            DomainError: there is none and none can be fetched.
            TransientError: try again later.
        """
        ...


class Placer(Protocol):
    """Tells whether a model would fit on this node, and where."""

    def judge(self, model: ModelDocumentV1, estimate: EstimateResultV1 | None) -> PlacementV1:
        """What would become of one replica now; changes nothing."""
        ...


class DocumentStore(Protocol[DocumentT_contra]):
    """The writer's side of a KV bucket. Raises TransientError while the store is away."""

    async def put(self, key: str, document: DocumentT_contra) -> int: ...

    async def delete(self, key: str) -> None: ...


class EventSink(Protocol):
    """Publishes events. Raises TransientError when not confirmed; the same `event_id` may then be sent again."""

    async def publish(
        self,
        event: Event,
        *,
        aggregate_id: str,
        version: int = 0,
        event_id: str | None = None,
        origin: Origin | None = None,
    ) -> None: ...


class LeaseView(Protocol):
    """Whether this instance is the one that acts."""

    @property
    def held(self) -> bool: ...


class MemoryEstimator(Protocol):
    """The inspector's estimates."""

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        """How much memory a model takes; has a deadline of its own.

        Raises:
            DomainError: the inspector cannot tell, and why.
            TransientError: nobody answers.
        """
        ...


class MachineProbe(Protocol):
    """The memory of this node."""

    async def measure(self) -> Machine:
        """As it is now; what was measured last when the machine does not answer."""
        ...


class GpuProbe(Protocol):
    """The GPUs of this node."""

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Empty when there is none or nothing can tell."""
        ...


class DockerExaminer(Protocol):
    """Asks a Docker engine about itself, for the doctor."""

    async def examine(self) -> DockerFacts:
        """Raises TransientError or DomainError when the engine cannot be asked."""
        ...
