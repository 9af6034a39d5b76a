"""Memory estimates and recommendations over request-reply. All memory in bytes."""

from typing import Literal

from pydantic import Field

from cortex_contracts.base import ContractModel
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType, Task

CPU_DEVICE = "CPU"
"""Name of host memory in results."""


class DeviceV1(ContractModel):
    """A device other than the CPU that layers may lie on, in the order the engine counts them."""

    name: str = Field(max_length=128)
    memory_free: int = Field(ge=0)
    memory_total: int | None = Field(default=None, ge=0)
    driver_context: bool = True
    """The driver keeps some memory for itself (GPUs do, RPC servers do not)."""


class HostV1(ContractModel):
    """Memory and cores of a host; None where it is not known."""

    memory_total: int | None = Field(default=None, ge=0)
    memory_free: int | None = Field(default=None, ge=0)
    cpu_count: int | None = Field(default=None, ge=1)


class EstimateRequestV1(ContractModel):
    """How much memory a model takes with these options. Paths are below the models root."""

    path: str
    engine_type: EngineType = EngineType.LLAMACPP
    llamacpp: LlamaCppOptions | None = None
    vllm: VllmOptions | None = None
    extra_args: tuple[str, ...] = ()
    task: Task = Task.GENERATE
    devices: tuple[DeviceV1, ...] = Field(default=(), max_length=64)
    host: HostV1 = HostV1()
    engine_build: int | None = Field(default=None, ge=1)
    """Build number of llama.cpp where it is known; compute buffers grew by 1 to 7 % between 10434 and 11434."""
    search: bool = True
    """Also look for the largest context and for better placements."""
    ask_engine: bool = False
    """Let the engine itself compute, where its fit-params tool is there; the formula answers otherwise."""


class MemoryV1(ContractModel):
    """What one device must hold. `total` is the sum of the parts; `repacked` is a share of `weights`, no part."""

    device: str
    weights: int = Field(ge=0)
    kv: int = Field(ge=0)
    """Keys and values, recurrent states included."""
    compute: int = Field(ge=0)
    output: int = Field(default=0, ge=0)
    other: int = Field(default=0, ge=0)
    """Prompt cache, driver context, projector, adapters, draft model."""
    total: int = Field(ge=0)
    repacked: int = Field(default=0, ge=0)
    """Weights that the CPU re-lays in memory of its own, which the system cannot reclaim."""
    free: int | None = None
    fits: bool | None = None
    """None when it is not known how much is free."""
    layers: int = 0
    """Blocks on this device, the output layer counted as one."""


class ProposalV1(ContractModel):
    """A setting that fits by this estimate, and why it is proposed."""

    setting: str
    value: str | int
    reason: str


class EstimateResultV1(ContractModel):
    """`known` False means that the total is a lower bound: `reason` says what is not counted."""

    path: str
    engine_type: EngineType
    architecture: str = ""
    known: bool
    reason: str = ""
    source: Literal["formula", "engine"] = "formula"
    devices: tuple[MemoryV1, ...] = ()
    total: int = Field(default=0, ge=0)
    fits: bool | None = None
    context_size: int | None = None
    """Tokens over all slots."""
    context_per_slot: int | None = None
    kv_bytes_per_token: int | None = None
    largest_context: int | None = None
    """Largest context that fits the devices with these options; 0 when none does, None when not asked or unknown."""
    max_concurrency: float | None = None
    """Requests of full length that fit at the same time (vLLM)."""
    proposals: tuple[ProposalV1, ...] = ()
    warnings: tuple[str, ...] = ()


class RecommendRequestV1(ContractModel):
    """How to serve a model on a host. `context_size` is the wish, None the model's own context."""

    path: str
    task: Task = Task.GENERATE
    devices: tuple[DeviceV1, ...] = Field(default=(), max_length=64)
    host: HostV1 = HostV1()
    context_size: int | None = Field(default=None, ge=1)
    parallel_slots: int = Field(default=1, ge=1, le=1024)


class RecommendResultV1(ContractModel):
    """Options to create the model with, one reason per setting, and what they take."""

    path: str
    engine_type: EngineType
    llamacpp: LlamaCppOptions | None = None
    vllm: VllmOptions | None = None
    settings: tuple[ProposalV1, ...] = ()
    estimate: EstimateResultV1 | None = None
    warnings: tuple[str, ...] = ()
