"""How large a compute buffer gets: ggml's graph allocator, replayed on sizes.

Follows ggml-alloc.c (dynamic allocator: best fit, merging of free blocks; results that take the place of a source)
and, for several devices, the assignment and the copies of ggml-backend.cpp.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from cortex_gguf_inspector.estimate.graph import IN_PLACE, Graph, Tensor

ALIGNMENT = 128
_ENDLESS = 1 << 62


@dataclass(slots=True)
class _Buffer:
    """One growing buffer with a list of free blocks, ordered by offset."""

    free: list[list[int]] = field(default_factory=lambda: [[0, _ENDLESS]])
    highest: int = 0

    def take(self, size: int) -> int:
        size = _aligned(size)
        best = -1
        for index in range(len(self.free) - 1):
            block = self.free[index][1]
            if block >= size and (best == -1 or block <= self.free[best][1]):
                best = index
        block = self.free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del self.free[best]
        self.highest = max(self.highest, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        size = _aligned(size)
        for index, block in enumerate(self.free):
            if block[0] + block[1] == offset:
                block[1] += size
                if index + 1 < len(self.free) and block[0] + block[1] == self.free[index + 1][0]:
                    block[1] += self.free.pop(index + 1)[1]
                return
            if offset + size == block[0]:
                block[0] = offset
                block[1] += size
                return
        position = sum(1 for block in self.free if block[0] < offset)
        self.free.insert(position, [offset, size])


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(slots=True)
class _Place:
    """Where a tensor lies and who still needs it."""

    device: int = 0
    offset: int = 0
    size: int = 0
    allocated: bool = False
    pinned: bool = False
    children: int = 0
    views: int = 0


class _Allocator:
    def __init__(self) -> None:
        self.buffers: defaultdict[int, _Buffer] = defaultdict(_Buffer)
        self._places: dict[int, _Place] = {}

    def place(self, tensor: Tensor) -> _Place:
        found = self._places.get(id(tensor))
        if found is None:
            found = self._places[id(tensor)] = _Place()
        return found

    def allocate(self, tensor: Tensor, device: int) -> None:
        place = self.place(tensor)
        if place.allocated or tensor.external or tensor.view_of is not None:
            return
        place.allocated = True
        place.size = tensor.size
        if tensor.op in IN_PLACE and self._take_over(tensor, place):
            return
        place.device = device
        place.offset = self.buffers[device].take(tensor.size)

    def _take_over(self, tensor: Tensor, place: _Place) -> bool:
        """Reuse the memory of a source that nobody else needs."""
        for parent in tensor.sources:
            parent_place = self.place(parent)
            owner = parent.view_of or parent
            owner_place = self.place(owner)
            if owner.external or owner_place.pinned or tensor.layout != parent.layout:
                continue
            if parent_place.children != 1 or parent_place.views != 0:
                continue
            if parent.view_of is not None:
                # ggml leaves views of views out here; `own` of a view is never set, so only plain parents count.
                continue
            if not owner_place.allocated:
                continue
            place.device, place.offset = owner_place.device, owner_place.offset
            owner_place.allocated = False
            return True
        return False

    def release(self, parent: Tensor) -> None:
        """One who needed `parent` is done."""
        place = self.place(parent)
        place.children -= 1
        if place.children != 0 or place.views != 0:
            return
        owner = parent.view_of or parent
        owner_place = place
        if parent.view_of is not None:
            owner_place = self.place(owner)
            owner_place.views -= 1
            if owner_place.views != 0 or owner_place.children != 0:
                return
        if owner_place.allocated and not owner_place.pinned:
            owner_place.allocated = False
            self.buffers[owner_place.device].give(owner_place.offset, owner_place.size)


def buffer_sizes(graph: Graph, devices: int) -> dict[int, int]:
    """Bytes of the compute buffer per device; device 0 is the CPU, 1..devices are the others."""
    if devices:
        nodes, where, leaf_home = _split(graph)
    else:
        nodes, where, leaf_home = graph.nodes, [0] * len(graph.nodes), {}
    allocator = _Allocator()
    for leaf in graph.leafs:
        allocator.allocate(leaf, leaf_home.get(id(leaf), 0))
    for node in nodes:
        if node.view_of is not None and node.op != "dependency":
            allocator.place(node.view_of).views += 1
        for source in node.sources:
            allocator.place(source).children += 1
    for node, device in zip(nodes, where, strict=True):
        allocator.allocate(node, device)
        for source in node.sources:
            allocator.release(source)
    return {device: buffer.highest for device, buffer in sorted(allocator.buffers.items())}


def _split(graph: Graph) -> tuple[list[Tensor], list[int], dict[int, int]]:
    """The graph with a copy of every tensor that is needed on another device, and the device of each node."""
    assigned = _assign(graph)
    nodes: list[Tensor] = []
    where: list[int] = []
    pending: list[Tensor] = []
    copies: dict[tuple[int, int], Tensor] = {}
    current = next((assigned[id(node)] for node in graph.nodes if node.op != "view"), 0)
    start = 0

    def flush(device: int, end: int) -> None:
        for source in pending:
            nodes.append(Tensor("dependency", source.shape, source.stride, source.element, [source], view_of=source))
            where.append(assigned.get(id(source), 0))
            nodes.append(copies[id(source), device])
            where.append(device)
        for node in graph.nodes[start:end]:
            nodes.append(node)
            where.append(assigned[id(node)])
        pending.clear()

    for index, node in enumerate(graph.nodes):
        if node.op == "view":
            continue
        device = assigned[id(node)]
        if device != current:
            flush(current, index)
            start, current = index, device
        for position, source in enumerate(node.sources):
            home = source.home if source.external and source.home is not None else assigned.get(id(source), 0)
            if home == device or source.external:
                continue
            key = (id(source), device)
            if key not in copies:
                copies[key] = _copy(source)
                pending.append(source)
            node.sources[position] = copies[key]
    flush(current, len(graph.nodes))
    return nodes, where, {id(leaf): 0 for leaf in graph.leafs}


def _copy(source: Tensor) -> Tensor:
    return Tensor("copy", source.shape, source.stride, source.element, stored_bytes=source.stored_bytes)


def _assign(graph: Graph) -> dict[int, int]:
    """The device of every node: with its weights or its cache, else with its neighbours (ggml_backend_sched_split_graph)."""
    assigned: dict[int, int] = {}
    for node in graph.nodes:
        home = _own_home(node)
        if home is not None:
            assigned[id(node)] = home
    for backwards, others in ((False, True), (True, True), (False, False), (True, False)):
        _spread(graph.nodes, assigned, backwards=backwards, skip_cpu=others)
    for node in graph.nodes:
        assigned.setdefault(id(node), 0)
    for node in reversed(graph.nodes):
        if node.view_of is not None and node.op == "view":
            owner = node.view_of
            assigned[id(node)] = owner.home or 0 if owner.external else assigned.get(id(owner), 0)
    return assigned


def _own_home(node: Tensor) -> int | None:
    if node.home is not None:
        return node.home
    if node.op == "view":
        return None
    if node.view_of is not None and node.view_of.external:
        return node.view_of.home
    if node.op == "rope":
        return None
    return next((source.home for source in node.sources if source.external and source.constant_weight), None)


def _spread(nodes: list[Tensor], assigned: dict[int, int], *, backwards: bool, skip_cpu: bool) -> None:
    current: int | None = None
    for node in reversed(nodes) if backwards else nodes:
        if node.op == "view":
            continue
        found = assigned.get(id(node))
        if found is not None:
            current = None if skip_cpu and found == 0 else found
        elif current is not None:
            assigned[id(node)] = current
