"""What this node's memory is promised to."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_orchestrator.domain.asks import Room
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.placement import (
    Ask,
    Machine,
    Placed,
    Promise,
    Refused,
    Wish,
    gpu_room,
    host_room,
    place,
)
from cortex_orchestrator.handlers.asks import Asks

CPU = "cpu"


class Ledger:
    """A promise is made at a replica's admission and derived again for a replica that was found running."""

    def __init__(self, asks: Asks) -> None:
        self._asks = asks
        self._made: dict[ReplicaId, Promise] = {}
        self.promises: dict[ReplicaId, Promise] = {}
        self.machine = Machine(0, 0)

    @property
    def has_gpus(self) -> bool:
        return bool(self.machine.gpus)

    def open(
        self,
        machine: Machine,
        models: Mapping[str, ModelDocumentV1],
        observed: Mapping[ReplicaId, Observed],
        coming: frozenset[ReplicaId],
        settled: frozenset[ReplicaId],
    ) -> None:
        """The promises as they stand: of what runs, and of what is being launched."""
        self.machine = machine
        alive = {replica for replica, seen in observed.items() if seen.phase is not Phase.EXITED} | coming
        self._made = {replica: promise for replica, promise in self._made.items() if replica in alive}
        promises: dict[ReplicaId, Promise] = {}
        for replica in sorted(alive):
            seen = observed.get(replica)
            promise = self._derived(seen, models) if seen is not None else None
            promise = promise or self._made.get(replica) or Promise()
            promises[replica] = replace(promise, settled=replica in settled)
        self.promises = promises

    def make(self, replica: ReplicaId, promise: Promise) -> None:
        """Keep this memory for a replica that is about to be launched."""
        self._made[replica] = promise
        self.promises[replica] = promise

    def promised_memory(self) -> dict[str, int]:
        """Bytes by device, as the node's document has it."""
        return devices_of(self.machine, self.promises.values())

    def room(self) -> Room:
        """What can still be promised."""
        promises = tuple(self.promises.values())
        return Room(gpu_room(self.machine, promises), host_room(self.machine, promises))

    def try_place(self, ask: Ask, wish: Wish) -> Placed | Refused:
        """A place beside all that is promised."""
        return place(ask, self.machine, tuple(self.promises.values()), wish)

    def _derived(self, seen: Observed, models: Mapping[str, ModelDocumentV1]) -> Promise | None:
        """By what its engine reported or the estimate says, on the GPUs it has; None when nobody can tell."""
        model = models.get(ModelId(seen.identity.model_id))
        spec_hash = seen.identity.spec_hash
        if model is None or seen.phase is not Phase.RUNNING:
            return None
        made = self._made.get(seen.replica_id)
        if made is not None and not self._asks.has_report(spec_hash):
            return made
        ask = self._asks.of(model, spec_hash, has_gpus=self.has_gpus)
        if ask is None:
            return None
        return Promise(ask.host, self._on_gpus(ask, seen.gpus), ask.mapped)

    def _on_gpus(self, ask: Ask, gpus: tuple[int, ...]) -> dict[int, int]:
        totals = {gpu.index: gpu.total for gpu in self.machine.gpus}
        known = [index for index in gpus if index in totals]
        if ask.share is not None:
            return {index: int(totals[index] * ask.share) for index in known}
        return {index: ask.gpu // len(known) for index in known}


def devices_of(machine: Machine, promises: Iterable[Promise]) -> dict[str, int]:
    """Bytes by `cpu` and GPU uuid."""
    sums: dict[str, int] = {}
    uuids = {gpu.index: gpu.uuid for gpu in machine.gpus}
    for promise in promises:
        sums[CPU] = sums.get(CPU, 0) + promise.host
        for index, size in promise.gpus.items():
            if index in uuids:
                sums[uuids[index]] = sums.get(uuids[index], 0) + size
    return sums
