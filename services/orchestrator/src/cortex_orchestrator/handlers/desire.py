"""From models and what is there to the replicas that should be there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.plan import Wanted
from cortex_orchestrator.domain.rollout import Member, Rollout, roll
from cortex_orchestrator.domain.spec import ContainerSpec, ReplicaKey
from cortex_orchestrator.handlers.admission import Admission
from cortex_orchestrator.handlers.memory import Scene
from cortex_orchestrator.handlers.specs import SpecSource


@dataclass(slots=True)
class Desired:
    """Replicas to have, what they are made of, and why others are not among them."""

    keys: dict[ReplicaId, ReplicaKey] = field(default_factory=dict[ReplicaId, ReplicaKey])
    wanted: dict[ReplicaId, Wanted] = field(default_factory=dict[ReplicaId, Wanted])
    farewells: dict[ReplicaId, str] = field(default_factory=dict[ReplicaId, str])


class Desire:
    """`admission` says whether a successor fits beside all that runs, and where a replica ran last."""

    def __init__(self, specs: SpecSource, admission: Admission) -> None:
        self._specs = specs
        self._admission = admission

    def of(self, scene: Scene, asleep: Mapping[ModelId, str]) -> Desired:
        """Every replica that should be there now. A model with external endpoints is run by somebody else."""
        desired = Desired()
        by_model: dict[str, list[Observed]] = {}
        for seen in scene.observed.values():
            by_model.setdefault(seen.identity.model_id, []).append(seen)
        for model in scene.models.values():
            if model.desired_state is not DesiredState.RUNNING or model.external:
                continue
            if model.id in asleep:
                desired.farewells |= {seen.replica_id: asleep[model.id] for seen in by_model.get(model.id, [])}
                continue
            self._add(model, by_model.get(model.id, []), scene, desired)
        return desired

    def _add(self, model: ModelDocumentV1, observed: list[Observed], scene: Scene, desired: Desired) -> None:
        built = {seen.identity.ordinal: self._wanted(model, seen.identity.ordinal, seen.gpus) for seen in observed}
        members = [_member(seen, built[seen.identity.ordinal], scene) for seen in observed]
        members += [
            Member(ordinal, current=True, running=False, serving=False)
            for ordinal in _coming(model, scene)
            if ordinal not in built
        ]
        made = self._roll(model, members, built)
        for ordinal in made.ordinals:
            key = ReplicaKey(model, ordinal)
            wanted = built.get(ordinal) or self._wanted(model, ordinal, self._last_gpus(model, ordinal))
            desired.keys[key.id] = key
            desired.wanted[key.id] = replace(
                wanted,
                held=ordinal in made.held,
                once=model.lifecycle is Lifecycle.MANUAL,
                replace_reason=made.replace_reasons.get(ordinal, wanted.replace_reason),
            )
        desired.farewells |= {ReplicaKey(model, ordinal).id: reason for ordinal, reason in made.farewells.items()}

    def _roll(self, model: ModelDocumentV1, members: list[Member], built: Mapping[int, Wanted]) -> Rollout:
        """A rolling change waits for the estimate of what it would start: it decides whether both fit."""
        spec = _successor(members, built)
        if spec is None:
            return roll(model.replicas, members, None)
        if self._admission.undecided(model, spec):
            stale = frozenset(member.ordinal for member in members if member.running and not member.current)
            kept = roll(model.replicas, [replace(member, current=True) for member in members], None)
            return replace(kept, held=stale)
        return roll(model.replicas, members, self._admission.no_room(model, spec))

    def _last_gpus(self, model: ModelDocumentV1, ordinal: int) -> tuple[int, ...] | None:
        return self._admission.last_gpus(ReplicaKey(model, ordinal).id)

    def _wanted(self, model: ModelDocumentV1, ordinal: int, gpus: tuple[int, ...] | None) -> Wanted:
        return self._specs.wanted(ReplicaKey(model, ordinal), gpus)


def _successor(members: list[Member], built: Mapping[int, Wanted]) -> ContainerSpec | None:
    """What a replica that serves by an older specification is to be replaced with."""
    for member in members:
        wanted = built.get(member.ordinal)
        if member.serving and not member.current and wanted is not None and wanted.spec is not None:
            return wanted.spec
    return None


def _coming(model: ModelDocumentV1, scene: Scene) -> list[int]:
    """Ordinals of the model that are being launched."""
    prefix = f"{model.id}-"
    return [int(replica[len(prefix) :]) for replica in sorted(scene.coming) if replica.startswith(prefix)]


def _member(seen: Observed, wanted: Wanted, scene: Scene) -> Member:
    """A run whose specification cannot be built now is left as it is."""
    return Member(
        ordinal=seen.identity.ordinal,
        current=wanted.spec is None or wanted.spec.hash == seen.identity.spec_hash,
        running=seen.phase is Phase.RUNNING,
        serving=seen.replica_id in scene.serving,
        leaving=seen.replica_id in scene.leaving,
    )
