"""From models and what is there to the replicas that should be there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, Lifecycle
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.plan import Wanted
from cortex_orchestrator.domain.rollout import Member, roll
from cortex_orchestrator.domain.spec import ContainerSpec, ReplicaKey
from cortex_orchestrator.handlers.specs import SpecSource


@dataclass(frozen=True, slots=True)
class Present:
    """What is there. `leaving` replicas are being stopped for good, `coming` ones are being launched."""

    observed: Mapping[ReplicaId, Observed]
    serving: frozenset[ReplicaId]
    leaving: frozenset[ReplicaId]
    coming: Mapping[ReplicaId, tuple[ModelId, int]]


@dataclass(slots=True)
class Desired:
    """Replicas to have, what they are made of, and why others are not among them."""

    keys: dict[ReplicaId, ReplicaKey] = field(default_factory=dict[ReplicaId, ReplicaKey])
    wanted: dict[ReplicaId, Wanted] = field(default_factory=dict[ReplicaId, Wanted])
    farewells: dict[ReplicaId, str] = field(default_factory=dict[ReplicaId, str])


class Desire:
    """`no_room` says why a replica does not fit beside all that runs; None when it does."""

    def __init__(self, specs: SpecSource, no_room: Callable[[ReplicaKey, ContainerSpec], str | None]) -> None:
        self._specs = specs
        self._no_room = no_room

    def of(self, models: Mapping[str, ModelDocumentV1], asleep: Mapping[ModelId, str], present: Present) -> Desired:
        """Every replica that should be there now. A model with external endpoints is run by somebody else."""
        desired = Desired()
        by_model: dict[str, list[Observed]] = {}
        for seen in present.observed.values():
            by_model.setdefault(seen.identity.model_id, []).append(seen)
        for model in models.values():
            if model.desired_state is not DesiredState.RUNNING or model.external:
                continue
            if model.id in asleep:
                desired.farewells |= {seen.replica_id: asleep[model.id] for seen in by_model.get(model.id, [])}
                continue
            self._add(model, by_model.get(model.id, []), present, desired)
        return desired

    def _add(self, model: ModelDocumentV1, observed: list[Observed], present: Present, desired: Desired) -> None:
        built = {seen.identity.ordinal: self._wanted(model, seen.identity.ordinal, seen.gpus) for seen in observed}
        members = [_member(seen, built[seen.identity.ordinal], present) for seen in observed]
        members += [
            Member(ordinal, current=True, running=False, serving=False)
            for replica, (model_id, ordinal) in present.coming.items()
            if model_id == model.id and replica not in present.observed
        ]
        made = roll(model.replicas, members, self._room(model, members, built))
        for ordinal in made.ordinals:
            key = ReplicaKey(model, ordinal)
            wanted = built.get(ordinal) or self._wanted(model, ordinal, None)
            desired.keys[key.id] = key
            desired.wanted[key.id] = replace(
                wanted,
                held=ordinal in made.held,
                once=model.lifecycle is Lifecycle.MANUAL,
                replace_reason=made.replace_reasons.get(ordinal, wanted.replace_reason),
            )
        desired.farewells |= {ReplicaKey(model, ordinal).id: reason for ordinal, reason in made.farewells.items()}

    def _room(self, model: ModelDocumentV1, members: list[Member], built: Mapping[int, Wanted]) -> str | None:
        """Asked for a rolling change only."""
        for member in members:
            wanted = built.get(member.ordinal)
            if member.serving and not member.current and wanted is not None and wanted.spec is not None:
                return self._no_room(ReplicaKey(model, member.ordinal), wanted.spec)
        return None

    def _wanted(self, model: ModelDocumentV1, ordinal: int, gpus: tuple[int, ...] | None) -> Wanted:
        return self._specs.wanted(ReplicaKey(model, ordinal), gpus)


def _member(seen: Observed, wanted: Wanted, present: Present) -> Member:
    """A run whose specification cannot be built now is left as it is."""
    return Member(
        ordinal=seen.identity.ordinal,
        current=wanted.spec is None or wanted.spec.hash == seen.identity.spec_hash,
        running=seen.phase is Phase.RUNNING,
        serving=seen.replica_id in present.serving,
        leaving=seen.replica_id in present.leaving,
    )
