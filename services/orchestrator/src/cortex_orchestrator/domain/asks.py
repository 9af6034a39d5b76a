"""From the inspector's estimate, and from what the engine itself reported, to what a replica asks for. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import CPU_DEVICE, DeviceV1, EstimateRequestV1, EstimateResultV1, HostV1, MemoryV1
from cortex_orchestrator.domain.placement import Ask

MIB = 1 << 20
ENDLESS = 1 << 50
"""Memory of the one GPU an estimate is asked for: how it is split over real ones is decided here."""

_BUFFER = re.compile(r"(?P<device>\S+) +(?P<kind>model|KV|RS|output|compute) buffer size =\s*(?P<size>[\d.]+) MiB")
_DRY_RUN_ENDS = re.compile(r"fitting params to free memory took|failed to fit params")
_VLLM = re.compile(r"(?:Model loading took|Available KV cache memory:)\s*(?P<size>[\d.]+) GiB", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on a machine: by GPU index, and of host memory. Bytes."""

    gpus: Mapping[int, int]
    host: int


def request_for(model: ModelDocumentV1, *, has_gpus: bool, room: Room | None = None) -> EstimateRequestV1 | None:
    """What to ask the inspector; None for a model that is not on this node's disks.

    With a `room` it is to look for settings that fit there, otherwise for the need alone.
    """
    if model.local_path is None:
        return None
    options = model.llamacpp
    if options is not None:
        options = options.model_copy(update={"tensor_split": None, "split_mode": None})
    return EstimateRequestV1(
        path=model.local_path,
        engine_type=model.engine_type,
        llamacpp=options,
        vllm=model.vllm,
        extra_args=model.extra_args,
        task=model.task,
        devices=_devices(room, has_gpus=has_gpus),
        host=HostV1(memory_free=room.host) if room is not None else HostV1(),
        search=room is not None,
    )


def _devices(room: Room | None, *, has_gpus: bool) -> tuple[DeviceV1, ...]:
    if not has_gpus:
        return ()
    if room is None:
        return (DeviceV1(name="GPU", memory_free=ENDLESS),)
    return tuple(DeviceV1(name=f"GPU{index}", memory_free=free) for index, free in sorted(room.gpus.items()))


def ask_of(model: ModelDocumentV1, estimate: EstimateResultV1 | None, note: str, *, has_gpus: bool) -> Ask:
    """What one replica of the model needs; a lower bound where the estimate is missing or says that it is one."""
    ask = _shape(model, has_gpus=has_gpus)
    if estimate is None:
        return replace(ask, known=ask.share is not None, note=note)
    host = [memory for memory in estimate.devices if memory.device == CPU_DEVICE]
    gpus = [memory for memory in estimate.devices if memory.device != CPU_DEVICE]
    return replace(
        ask,
        host=sum(memory.total for memory in host),
        mapped=sum(_mapped(model, memory) for memory in host),
        gpu=sum(memory.total for memory in gpus),
        layers=sum(memory.layers for memory in gpus),
        known=estimate.known,
        note=estimate.reason,
    )


def _shape(model: ModelDocumentV1, *, has_gpus: bool) -> Ask:
    if model.engine_type is EngineType.VLLM:
        options = model.vllm or VllmOptions()
        if not has_gpus:
            return Ask()
        count = options.tp_size * options.pipeline_parallel_size
        return Ask(wants_gpu=True, share=options.gpu_memory_utilization, gpu_count=count)
    llama = model.llamacpp or LlamaCppOptions()
    proportions = tuple(float(part) for part in re.split(r"[,/]", llama.tensor_split)) if llama.tensor_split else ()
    return Ask(
        wants_gpu=has_gpus and llama.ngl != 0,
        elastic=llama.ngl is None,
        proportions=proportions if has_gpus and sum(proportions) > 0 else (),
    )


def _mapped(model: ModelDocumentV1, memory: MemoryV1) -> int:
    """Weights that stay pages of their file."""
    options = model.llamacpp or LlamaCppOptions()
    if model.engine_type is not EngineType.LLAMACPP or options.mlock or options.no_mmap:
        return 0
    return max(0, memory.weights - memory.repacked)


@dataclass(frozen=True, slots=True)
class Reported:
    """Memory that an engine said it took, bytes."""

    host: int
    mapped: int
    gpu: int


def reported(engine_type: EngineType, lines: Iterable[str]) -> Reported | None:
    """What the log of a loaded engine tells; None when the lines are not there (any more)."""
    return _llamacpp(lines) if engine_type is EngineType.LLAMACPP else _vllm(lines)


def _llamacpp(lines: Iterable[str]) -> Reported | None:
    host = mapped = gpu = 0
    kinds: set[str] = set()
    for line in lines:
        if _DRY_RUN_ENDS.search(line):
            host = mapped = gpu = 0
            kinds.clear()
        found = _BUFFER.search(line)
        if found is None:
            continue
        size = round(float(found["size"]) * MIB)
        kinds.add(found["kind"])
        device = found["device"]
        if device.startswith("CPU") or device.endswith("Host"):
            host += size
            mapped += size if device.endswith("Mapped") else 0
        else:
            gpu += size
    return Reported(host, mapped, gpu) if {"model", "compute"} <= kinds else None


def _vllm(lines: Iterable[str]) -> Reported | None:
    sizes = [round(float(found["size"]) * (1 << 30)) for line in lines if (found := _VLLM.search(line)) is not None]
    return Reported(sum(sizes), 0, sum(sizes)) if sizes else None


def corrected(ask: Ask, estimate: EstimateResultV1 | None, found: Reported) -> Ask:
    """What the engine took, and of the estimate only what no log tells: prompt cache, driver."""
    devices = estimate.devices if estimate is not None else ()
    host_extra = sum(memory.other for memory in devices if memory.device == CPU_DEVICE)
    gpu_extra = sum(memory.other for memory in devices if memory.device != CPU_DEVICE)
    if ask.share is not None:
        return replace(ask, gpu=found.gpu, known=True, note="")
    return replace(
        ask,
        host=found.host + host_extra,
        mapped=found.mapped,
        gpu=found.gpu + gpu_extra if found.gpu else 0,
        known=True,
        note="",
    )
