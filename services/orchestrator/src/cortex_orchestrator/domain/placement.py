"""Where a replica fits. Pure: what is asked, measured and promised in; a place or a refusal in words out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

GIB = 1 << 30
UNSEEN_GPUS = "This node's GPUs cannot be seen (no NVML): whether the model fits on the ones it names is not known."
PER_EXTRA_GPU = GIB // 2
"""What a driver keeps on every GPU; the ask counts it once."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as measured; memory in bytes."""

    index: int
    uuid: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory as measured, bytes. `host_reserve` is kept for everybody else."""

    host_total: int
    host_free: int
    gpus: tuple[Gpu, ...] = ()
    host_reserve: int = 0


@dataclass(frozen=True, slots=True)
class Promise:
    """Memory that a replica may take. `mapped` is the share of `host` that the system counts as free: pages of files.

    Until it is `settled` nothing of it shows in what is measured.
    """

    host: int = 0
    gpus: Mapping[int, int] = field(default_factory=dict[int, int])
    mapped: int = 0
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What a replica needs. Unless `known`, it is a lower bound and `note` says why."""

    host: int = 0
    mapped: int = 0
    gpu: int = 0
    """Bytes over all GPUs, one driver's own memory included."""
    known: bool = True
    note: str = ""
    layers: int = 0
    """Blocks on GPUs; what can be moved between devices."""
    elastic: bool = False
    """The engine itself keeps on the CPU what does not fit on the GPUs."""
    wants_gpu: bool = False
    """Uses GPUs where there are any."""
    share: float | None = None
    """Takes this share of each of its GPUs, whatever the model needs."""
    gpu_count: int | None = None
    """Exactly so many GPUs; None is as few as will do."""
    proportions: tuple[float, ...] = ()
    """How the administrator splits it, one number a GPU."""
    proposals: tuple[str, ...] = ()
    """Settings that the inspector proposes, in words."""


@dataclass(frozen=True, slots=True)
class Wish:
    """`indices` are the administrator's; `preferred` ones were used before."""

    indices: tuple[int, ...] | None = None
    preferred: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A place: empty `gpus` is the CPU alone."""

    gpus: tuple[int, ...]
    promise: Promise
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """No place: what was tried, and what would fit."""

    reason: str
    asked: int
    tried: tuple[str, ...] = ()
    would_fit: tuple[str, ...] = ()


def host_room(machine: Machine, promises: Iterable[Promise]) -> int:
    """Host memory that may still be promised; never negative."""
    promised = unsettled = mapped = 0
    for promise in promises:
        promised += promise.host
        unsettled += 0 if promise.settled else promise.host
        mapped += promise.mapped if promise.settled else 0
    by_promise = machine.host_total - promised
    by_measure = machine.host_free - unsettled - mapped
    return max(0, min(by_promise, by_measure) - machine.host_reserve)


def gpu_room(machine: Machine, promises: Iterable[Promise]) -> dict[int, int]:
    """GPU index -> memory that may still be promised."""
    taken = list(promises)
    room: dict[int, int] = {}
    for gpu in machine.gpus:
        promised = sum(promise.gpus.get(gpu.index, 0) for promise in taken)
        unsettled = sum(promise.gpus.get(gpu.index, 0) for promise in taken if not promise.settled)
        room[gpu.index] = max(0, min(gpu.total - promised, gpu.free - unsettled))
    return room


def place(ask: Ask, machine: Machine, promises: Sequence[Promise], wish: Wish) -> Placed | Refused:
    """The same input gives the same place; what is promised never exceeds the room there is."""
    rooms, host = gpu_room(machine, promises), host_room(machine, promises)
    missing = [index for index in wish.indices or () if index not in rooms]
    if wish.indices and not rooms:
        return Placed(wish.indices, Promise(), "as the model asks", (UNSEEN_GPUS,))
    if missing:
        there = ", ".join(str(index) for index in rooms)
        return Refused(f"There is no GPU {missing[0]} on this node (there: {there}).", ask.host + ask.gpu)
    if not rooms or not (ask.wants_gpu or ask.gpu or wish.indices):
        return _on_host(ask, host)
    if ask.host > host:
        return _refuse_host(ask, host)
    sets = _candidates(ask, rooms, wish)
    tried: list[str] = []
    for gpus in sets:
        parts = _split(ask, machine, rooms, gpus)
        if parts is not None:
            return _placed(ask, gpus, parts)
        tried.append(_describe(gpus, rooms))
    partly = _partly(ask, rooms, host, sets[-1]) if ask.elastic and sets else None
    return partly or _refuse_gpus(ask, rooms, host, tried, wish)


def _on_host(ask: Ask, host: int) -> Placed | Refused:
    if ask.host > host:
        return _refuse_host(ask, host)
    reason = f"{gib(ask.host)} of {gib(host)} host memory" if ask.known else "host memory"
    return Placed((), Promise(ask.host, mapped=ask.mapped), reason, _warnings(ask))


def _placed(ask: Ask, gpus: tuple[int, ...], parts: dict[int, int]) -> Placed:
    reason = f"{gib(sum(parts.values()))} on GPU {_join(gpus)}, {gib(ask.host)} host memory"
    return Placed(gpus, Promise(ask.host, parts, ask.mapped), reason, _warnings(ask))


def _warnings(ask: Ask) -> tuple[str, ...]:
    return () if ask.known else (f"It is not known how much memory the model takes: {ask.note}",)


def _candidates(ask: Ask, rooms: Mapping[int, int], wish: Wish) -> list[tuple[int, ...]]:
    """Sets of GPUs in the order of preference: the administrator's, those used before, few before many, empty ones first."""
    if wish.indices:
        return [wish.indices]
    emptiest = sorted(rooms, key=lambda index: (-rooms[index], index))
    count = len(ask.proportions) or ask.gpu_count
    if count is not None and count > len(emptiest):
        return []
    if not ask.known and count is None:
        return [tuple(sorted(emptiest))]
    sizes = range(1, len(emptiest) + 1) if count is None else (count,)
    sets = [tuple(sorted(emptiest[:size])) for size in sizes]
    preferred = tuple(sorted(wish.preferred))
    fits = preferred and set(preferred) <= rooms.keys() and (count is None or len(preferred) == count)
    return [preferred, *(one for one in sets if one != preferred)] if fits else sets


def _split(ask: Ask, machine: Machine, rooms: Mapping[int, int], gpus: tuple[int, ...]) -> dict[int, int] | None:
    """Bytes for each GPU; None when they do not fit."""
    if ask.share is not None:
        totals = {gpu.index: gpu.total for gpu in machine.gpus}
        parts = {index: ceil(totals[index] * ask.share) for index in gpus}
        enough = sum(parts.values()) >= ask.gpu
    else:
        need = ask.gpu + PER_EXTRA_GPU * (len(gpus) - 1) if ask.gpu else 0
        if len(gpus) > 1 and ask.layers:
            need += ask.gpu // ask.layers  # a layer is never cut in two
        weights = dict(zip(gpus, ask.proportions, strict=False)) if ask.proportions else {i: rooms[i] for i in gpus}
        whole = sum(weights.values())
        enough = len(weights) == len(gpus) and (whole > 0 or need == 0)
        parts = {index: ceil(need * (weight / whole)) if need else 0 for index, weight in weights.items() if enough}
    return parts if enough and all(parts[index] <= rooms[index] for index in gpus) else None


def _partly(ask: Ask, rooms: Mapping[int, int], host: int, gpus: tuple[int, ...]) -> Placed | None:
    """As many layers on the GPUs as fit; the engine itself leaves the others on the CPU."""
    if not ask.layers or ask.share is not None:
        return None
    per_layer = ceil(ask.gpu / ask.layers)
    fitting = {index: rooms[index] // per_layer for index in gpus}
    layers = min(ask.layers, sum(fitting.values()))
    left = ask.gpu - layers * per_layer
    if layers < 1 or left <= 0 or ask.host + left > host:
        return None
    parts = {index: rooms[index] for index in gpus}
    warning = (
        f"Only about {layers} of {ask.layers} layers fit on GPU {_join(gpus)}: the engine keeps the others on the CPU."
    )
    return Placed(
        gpus, Promise(ask.host + left, parts, ask.mapped), f"partly on GPU {_join(gpus)}", (*_warnings(ask), warning)
    )


def _refuse_host(ask: Ask, host: int) -> Refused:
    reason = f"It takes {gib(ask.host)} of host memory and {gib(host)} can still be promised."
    return Refused(reason, ask.host + ask.gpu, ("the CPU",), ask.proposals)


def _refuse_gpus(ask: Ask, rooms: Mapping[int, int], host: int, tried: Sequence[str], wish: Wish) -> Refused:
    if not tried:
        return Refused(f"It needs {ask.gpu_count or len(ask.proportions)} GPUs and there are {len(rooms)}.", ask.gpu)
    what = f"{gib(ask.gpu)} of GPU memory" if ask.share is None else f"{ask.share:.0%} of each GPU's memory"
    reason = f"It takes {what}, and no choice of GPUs has room for it."
    return Refused(reason, ask.host + ask.gpu, tuple(tried), (*_would_fit(ask, rooms, host, wish), *ask.proposals))


def _would_fit(ask: Ask, rooms: Mapping[int, int], host: int, wish: Wish) -> tuple[str, ...]:
    proposals: list[str] = []
    everything = sum(rooms.values())
    whole = ask.gpu + PER_EXTRA_GPU * (len(rooms) - 1)
    if ask.share is None and (wish.indices or ask.proportions) and len(rooms) > 1 and everything >= whole:
        split = ",".join(str(max(1, round(room / GIB))) for room in rooms.values())
        proposals.append(f"placement auto with tensor_split {split} over GPU {_join(tuple(rooms))}")
    if ask.share is None and ask.layers > 1:
        chosen = [rooms[index] for index in wish.indices or rooms]
        per_layer = ceil(ask.gpu / ask.layers)
        layers = min(ask.layers - 1, sum(room // per_layer for room in chosen))
        if layers >= 1 and ask.host + ask.gpu - layers * per_layer <= host:
            proposals.append(f"ngl {layers} (of {ask.layers} layers)")
    return tuple(proposals)


def _describe(gpus: tuple[int, ...], rooms: Mapping[int, int]) -> str:
    return f"GPU {_join(gpus)}: {gib(sum(rooms[index] for index in gpus))} can still be promised"


def _join(gpus: tuple[int, ...]) -> str:
    return " and ".join(str(index) for index in gpus)


def gib(size: int) -> str:
    """For people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size / (1 << 20):.0f} MiB"
