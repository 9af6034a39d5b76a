"""This machine's hardware, by psutil and, where its bindings are installed, NVML."""

import asyncio
import importlib
import importlib.util
import socket
from types import ModuleType
from typing import Any, cast

import psutil

from cortex_contracts.base import NodeId
from cortex_contracts.documents import GpuInfo, NodeDocumentV1
from cortex_contracts.enums import RuntimeKind
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.placement import Gpu, Machine
from cortex_orchestrator.ports import GpuProbe

log = get_logger()
MEASURE_TIMEOUT_S = 5.0


class NoGpus:
    """A GpuProbe for machines on which nothing can tell."""

    def gpus(self) -> tuple[GpuInfo, ...]:
        return ()


class NvmlGpus:
    """A GpuProbe over NVIDIA's management library."""

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = cast(Any, nvml)
        self._last: tuple[GpuInfo, ...] = ()

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Every GPU; those seen last, with nothing free, while the driver refuses to answer."""
        try:
            self._nvml.nvmlInit()
            try:
                self._last = tuple(self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount()))
                return self._last
            finally:
                self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("nvml_unavailable", error=str(error))
            return tuple(gpu.model_copy(update={"memory_free": 0}) for gpu in self._last)

    def _gpu(self, index: int) -> GpuInfo:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuInfo(
            index=index,
            uuid=_text(self._nvml.nvmlDeviceGetUUID(handle)),
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            memory_total=int(memory.total),
            memory_free=int(memory.free),
            utilization=self._utilization(handle),
        )

    def _utilization(self, handle: Any) -> int | None:
        """Some devices, a slice of one for example, cannot tell."""
        try:
            return int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except self._nvml.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def gpu_probe() -> GpuProbe:
    """NVML when nvidia-ml-py is installed."""
    if importlib.util.find_spec("pynvml") is None:
        return NoGpus()
    return NvmlGpus(importlib.import_module("pynvml"))


class MeasuredMachine:
    """The port `MachineProbe`: psutil, and the GPUs of the probe."""

    def __init__(self, gpus: GpuProbe, *, host_reserve: int) -> None:
        self._gpus = gpus
        self._host_reserve = host_reserve
        self._last = Machine(0, 0)

    async def measure(self) -> Machine:
        """In a thread: a driver may take its time."""
        try:
            async with asyncio.timeout(MEASURE_TIMEOUT_S):
                self._last = await asyncio.to_thread(self._measure)
        except TimeoutError:
            log.warning("machine_not_measured", timeout_s=MEASURE_TIMEOUT_S)
        return self._last

    def _measure(self) -> Machine:
        memory = psutil.virtual_memory()
        gpus = tuple(Gpu(gpu.index, gpu.uuid, gpu.memory_total, gpu.memory_free) for gpu in self._gpus.gpus())
        return Machine(memory.total, memory.available, gpus, self._host_reserve)


def describe(node: NodeId, runtime: RuntimeKind, gpus: GpuProbe) -> NodeDocumentV1:
    """The node as it is now. Blocking, some milliseconds."""
    memory = psutil.virtual_memory()
    return NodeDocumentV1(
        id=node,
        hostname=socket.gethostname(),
        runtime=runtime,
        cpu_count=psutil.cpu_count() or 1,
        memory_total=memory.total,
        memory_available=memory.available,
        cpu_percent=psutil.cpu_percent(interval=None),
        gpus=gpus.gpus(),
        aggregateversion=0,
    )
