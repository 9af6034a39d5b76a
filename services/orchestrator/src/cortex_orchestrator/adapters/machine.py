"""This machine's hardware, by psutil and, where its bindings are installed, NVML."""

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
from cortex_orchestrator.ports import GpuProbe

log = get_logger()


class NoGpus:
    """A GpuProbe for machines on which nothing can tell."""

    def gpus(self) -> tuple[GpuInfo, ...]:
        return ()


class NvmlGpus:
    """A GpuProbe over NVIDIA's management library."""

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = cast(Any, nvml)

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Every GPU; none when the driver refuses to answer."""
        try:
            self._nvml.nvmlInit()
            try:
                return tuple(self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount()))
            finally:
                self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.debug("nvml_unavailable", error=str(error))
            return ()

    def _gpu(self, index: int) -> GpuInfo:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuInfo(
            index=index,
            uuid=_text(self._nvml.nvmlDeviceGetUUID(handle)),
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            memory_total=int(memory.total),
            memory_free=int(memory.free),
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def gpu_probe() -> GpuProbe:
    """NVML when nvidia-ml-py is installed."""
    if importlib.util.find_spec("pynvml") is None:
        return NoGpus()
    return NvmlGpus(importlib.import_module("pynvml"))


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
        gpus=gpus.gpus(),
        aggregateversion=0,
    )
