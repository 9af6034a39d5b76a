"""What NVML says, and what is believed while it says nothing. The library is a stand-in: no GPU was at hand."""

import asyncio
from types import ModuleType, SimpleNamespace

from cortex_orchestrator.adapters.machine import MeasuredMachine, NvmlGpus, gpu_probe
from cortex_orchestrator.domain.placement import Gpu


class NvmlError(Exception):
    pass


class FakeNvml(ModuleType):
    NVMLError = NvmlError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.broken = False
        self.open = 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise NvmlError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=100, free=40 + handle)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if handle:
            raise self.NVMLError
        return SimpleNamespace(gpu=37, memory=0)

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle}".encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H"


def test_gpus_are_listed_and_none_is_believed_free_while_the_driver_is_silent() -> None:
    nvml = FakeNvml()
    probe = NvmlGpus(nvml)
    machine = asyncio.run(MeasuredMachine(probe, host_reserve=7).measure())  # a real loop: it waits for a thread
    assert machine.gpus == (Gpu(0, "GPU-0", 100, 40), Gpu(1, "GPU-1", 100, 41))
    assert machine.host_reserve == 7
    assert 0 < machine.host_free <= machine.host_total
    assert [gpu.utilization for gpu in probe.gpus()] == [37, None]
    assert nvml.open == 0
    nvml.broken = True
    assert [gpu.memory_free for gpu in probe.gpus()] == [0, 0]
    assert NvmlGpus(nvml).gpus() == ()


def test_a_machine_without_a_driver_is_a_machine_without_gpus() -> None:
    assert all(gpu.memory_total > 0 for gpu in gpu_probe().gpus())
