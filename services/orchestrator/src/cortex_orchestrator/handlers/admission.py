"""Who may be launched now: finds a place, makes room, or refuses with reasons."""

from dataclasses import dataclass, replace

from cortex_contracts.base import ModelId, NodeId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.estimates import EstimateResultV1
from cortex_contracts.operations import PlacementV1
from cortex_orchestrator.domain.asks import ask_of
from cortex_orchestrator.domain.eviction import Candidate, plan_eviction
from cortex_orchestrator.domain.placement import Ask, Placed, Promise, Refused, Wish
from cortex_orchestrator.domain.plan import Launch
from cortex_orchestrator.domain.spec import ContainerSpec
from cortex_orchestrator.handlers.asks import Asks
from cortex_orchestrator.handlers.ledger import Ledger, devices_of

STOPPING = "waiting for the memory of a model that is being stopped"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The launch with its GPUs."""

    launch: Launch


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not now, and nothing is wrong. `evict` models are to be stopped first."""

    reason: str
    evict: tuple[ModelId, ...] = ()


Decision = Admitted | Waiting | Refused


class Admission:
    """`enforce` False lets everything be launched and turns refusals into warnings."""

    def __init__(self, asks: Asks, ledger: Ledger, node: NodeId, *, enforce: bool = True) -> None:
        self._asks = asks
        self._ledger = ledger
        self._node = node
        self._enforce = enforce
        self._last_gpus: dict[ReplicaId, tuple[int, ...]] = {}
        self.candidates: tuple[Candidate, ...] = ()
        """On-demand models that run, as of the last round."""
        self.leaving = False
        """Something is being stopped, so that there will be more room soon."""

    def last_gpus(self, replica: ReplicaId) -> tuple[int, ...] | None:
        """The GPUs that the replica was launched on last."""
        return self._last_gpus.get(replica)

    def forget(self, known: frozenset[ReplicaId]) -> None:
        """Drop what is remembered of replicas that are neither wanted nor there."""
        self._last_gpus = {replica: gpus for replica, gpus in self._last_gpus.items() if replica in known}

    def admit(self, launch: Launch, model: ModelDocumentV1) -> Decision:
        """Decide on one launch, after all that were admitted before it."""
        spec = launch.spec
        ask = self._asks.of(model, spec.hash, has_gpus=self._ledger.has_gpus)
        if ask is None:
            return Waiting("asking how much memory the model takes")
        wish = _wish(model, self._last_gpus.get(spec.replica_id, ()))
        found = self._ledger.try_place(ask, wish)
        if isinstance(found, Refused):
            if self.leaving:
                return Waiting(STOPPING)
            others = [one for one in self.candidates if one.model_id != model.id]
            victims = plan_eviction(ask, self._ledger.machine, self._ledger.promises, others, wish)
            if victims:
                return Waiting(STOPPING, victims)
            if self._enforce:
                searching = self._asks.search(model, self._ledger.room())
                return Waiting("it does not fit: looking for settings that do") if searching else found
            found = Placed(_all_gpus(self._ledger, model), _promise(ask), "not enforced", (found.reason,))
        self._ledger.make(spec.replica_id, found.promise)
        self._last_gpus[spec.replica_id] = found.gpus
        return Admitted(replace(launch, spec=_with_place(spec, model, found)))

    def undecided(self, model: ModelDocumentV1, spec: ContainerSpec) -> bool:
        """Whether the answer about the model's memory is still on its way; it comes, or fails, within seconds."""
        return self._asks.of(model, spec.hash, has_gpus=self._ledger.has_gpus) is None

    def no_room(self, model: ModelDocumentV1, spec: ContainerSpec) -> str | None:
        """Why another replica does not fit beside all that runs; None when it does."""
        ask = self._asks.of(model, spec.hash, has_gpus=self._ledger.has_gpus)
        if ask is None or not ask.known:
            return "it is not known whether there is room for both"
        found = self._ledger.try_place(ask, _wish(model, ()))
        return found.reason if isinstance(found, Refused) else None

    def judge(self, model: ModelDocumentV1, estimate: EstimateResultV1 | None) -> PlacementV1:
        """What would become of one replica of this model now; changes nothing."""
        has_gpus = self._ledger.has_gpus
        ask = self._asks.of(model, None, has_gpus=has_gpus)
        if estimate is not None or ask is None:
            note = "nobody has estimated the model yet"
            ask = ask_of(model, estimate, note, has_gpus=has_gpus)
        wish = _wish(model, ())
        found = self._ledger.try_place(ask, wish)
        if isinstance(found, Placed):
            return PlacementV1(
                fits=True if ask.known else None,
                reason=found.reason if ask.known else found.warnings[0],
                node=self._node,
                gpus=found.gpus,
                asked=devices_of(self._ledger.machine, (found.promise,)),
            )
        others = [one for one in self.candidates if one.model_id != model.id]
        victims = plan_eviction(ask, self._ledger.machine, self._ledger.promises, others, wish)
        return PlacementV1(
            fits=bool(victims),
            reason=f"{found.reason} Models on demand would be stopped for it." if victims else found.reason,
            node=self._node,
            asked={"cpu": ask.host},
            evicts=victims,
            proposals=found.would_fit,
        )


def _wish(model: ModelDocumentV1, preferred: tuple[int, ...]) -> Wish:
    return Wish(preferred=preferred) if model.placement == "auto" else Wish(indices=model.placement or None)


def _all_gpus(ledger: Ledger, model: ModelDocumentV1) -> tuple[int, ...]:
    if model.placement != "auto":
        return model.placement
    return tuple(gpu.index for gpu in ledger.machine.gpus)


def _promise(ask: Ask) -> Promise:
    return Promise(ask.host, mapped=ask.mapped)


def _with_place(spec: ContainerSpec, model: ModelDocumentV1, found: Placed) -> ContainerSpec:
    gpus = found.gpus if model.placement == "auto" else spec.gpus
    command = replace(spec.command, warnings=(*spec.command.warnings, *found.warnings))
    return replace(spec, gpus=gpus, command=command)
