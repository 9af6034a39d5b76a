"""From a wanted replica to its specification: finds the engine's program, asks the builder, adds what the node adds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cortex_contracts.base import NodeId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1, PullProgress
from cortex_contracts.enums import EngineType
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.attempts import BackoffPolicy
from cortex_orchestrator.domain.engines import ENGINES, BuildRequest
from cortex_orchestrator.domain.plan import Problem, Wanted
from cortex_orchestrator.domain.spec import ContainerSpec, Mount, Program, ReplicaKey, SpecError
from cortex_orchestrator.ports import EngineCatalog

log = get_logger()

ProgramKey = tuple[EngineType, str | None]
OnPull = Callable[[ProgramKey, str, PullProgress], None]


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """What is the same for every engine of this node. `models_root` is the models folder as an engine sees it."""

    node: NodeId
    models_root: str | None
    mounts: tuple[Mount, ...] = ()
    hub_cache: Mount | None = None
    """Where engines that download models keep them."""
    gpus: tuple[int, ...] = ()
    memory_bytes: int | None = None
    key_fingerprint: str = ""
    """Of CORTEX_SECRET_KEY: engines whose own keys were derived from another one must be replaced."""


@dataclass(frozen=True, slots=True)
class _Search:
    """The result of looking for a program: found, or a problem that is looked at again from `retry_at` on."""

    program: Program | None = None
    problem: Problem | None = None
    failures: int = 0
    retry_at: datetime | None = None


def program_key(model: ModelDocumentV1) -> ProgramKey:
    return model.engine_type, model.engine_image


class SpecSource:
    """Builds specifications, and looks for programs in the background so that a long pull holds up nobody else."""

    def __init__(self, catalog: EngineCatalog, profile: NodeProfile, clock: Clock) -> None:
        self._catalog = catalog
        self._profile = profile
        self._clock = clock
        self._searches: dict[ProgramKey, _Search] = {}
        self._backoff = BackoffPolicy(first_s=2.0)

    def missing(self, keys: Mapping[ReplicaId, ReplicaKey], now: datetime) -> frozenset[ProgramKey]:
        """Programs that have to be looked for now."""
        return frozenset(program_key(key.model) for key in keys.values() if self._is_due(program_key(key.model), now))

    def forget(self, key: ProgramKey) -> None:
        """Look for the program anew: it could not be started."""
        self._searches.pop(key, None)

    async def search(self, key: ProgramKey, on_pull: OnPull) -> None:
        """Look for one program; never raises an error of ours, the result is part of `wanted` from then on."""
        engine_type, image = key
        failures = self._searches.get(key, _Search()).failures + 1

        def pulled(name: str, progress: PullProgress) -> None:
            if progress.current_bytes:  # it goes on: what went wrong before is over
                self._searches[key] = _Search(failures=failures)
            on_pull(key, name, progress)

        try:
            program = await self._catalog.find(ENGINES[engine_type], image, pulled)
        except DomainError as error:
            self._fail(key, Problem(error.code, error.message), failures)
        except (TransientError, OSError) as error:
            self._fail(key, Problem("engine_unavailable", str(error)), failures)
        else:
            self._searches[key] = _Search(program)

    def _fail(self, key: ProgramKey, problem: Problem, failures: int) -> None:
        """The pause begins now: a pull may have taken longer than it."""
        retry_at = self._clock.now() + timedelta(seconds=self._backoff.delay_s(failures))
        self._searches[key] = _Search(None, problem, failures, retry_at)
        log.warning("engine_not_found", engine=key[0].value, image=key[1], code=problem.code, error=problem.message)

    def _is_due(self, key: ProgramKey, now: datetime) -> bool:
        search = self._searches.get(key)
        return search is None or (search.program is None and search.retry_at is not None and search.retry_at <= now)

    def wanted(self, key: ReplicaKey, gpus: tuple[int, ...] | None = None) -> Wanted:
        """What is known of a replica now; on these GPUs, unless its model names its own."""
        search = self._searches.get(program_key(key.model))
        if search is None:
            return Wanted()
        if search.program is None:
            return Wanted(problem=search.problem)
        try:
            return Wanted(spec=build_spec(key, search.program, self._profile, gpus))
        except SpecError as error:
            return Wanted(problem=Problem(error.code, error.message))


def build_spec(
    key: ReplicaKey, program: Program, profile: NodeProfile, gpus: tuple[int, ...] | None = None
) -> ContainerSpec:
    """The specification of one replica on one node, on these GPUs unless the model names its own.

    Raises:
        SpecError: the model cannot be served as it is described.
    """
    model = key.model
    engine = ENGINES[model.engine_type]
    command = engine.build(BuildRequest(model, program, profile.models_root))
    return ContainerSpec(
        model_id=model.id,
        ordinal=key.ordinal,
        engine_type=model.engine_type,
        node=profile.node,
        program=program,
        command=command,
        mounts=profile.mounts + ((profile.hub_cache,) if command.hub_cache and profile.hub_cache else ()),
        gpus=(gpus or ()) if model.placement == "auto" else model.placement,
        memory_bytes=profile.memory_bytes,
        restart_generation=model.restart_generation,
        key_fingerprint=profile.key_fingerprint,
        stop=engine.stop_policy(model.stop_timeout_s),
        stop_timeout_s=model.stop_timeout_s,
    )
