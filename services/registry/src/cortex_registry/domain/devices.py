"""Hardware of the hosts, in the words of an estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cortex_contracts.base import NodeId
from cortex_contracts.documents import NodeDocumentV1
from cortex_contracts.estimates import DeviceV1, HostV1


@dataclass(frozen=True, slots=True)
class Hardware:
    """What an estimate is compared with. `node` is None when no host is known."""

    node: NodeId | None = None
    devices: tuple[DeviceV1, ...] = ()
    host: HostV1 = field(default_factory=HostV1)


def hardware_of(
    nodes: Sequence[NodeDocumentV1],
    placement: Literal["auto"] | tuple[int, ...] = "auto",
    wanted: NodeId | None = None,
) -> Hardware:
    """The host with most free GPU memory, then most free memory; with a placement only the GPUs it names."""
    candidates = [node for node in nodes if wanted is None or node.id == wanted]
    if not candidates:
        return Hardware()
    best = max(candidates, key=lambda node: (sum(gpu.memory_free for gpu in node.gpus), node.memory_available))
    chosen = [gpu for gpu in best.gpus if placement == "auto" or gpu.index in placement]
    devices = tuple(
        DeviceV1(name=f"GPU{gpu.index}", memory_free=gpu.memory_free, memory_total=gpu.memory_total) for gpu in chosen
    )
    host = HostV1(memory_total=best.memory_total, memory_free=best.memory_available, cpu_count=best.cpu_count or None)
    return Hardware(best.id, devices, host)
