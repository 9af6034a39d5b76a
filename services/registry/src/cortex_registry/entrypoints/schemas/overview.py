"""Answers about the whole at a glance. Memory in bytes."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from cortex_contracts.enums import RuntimeKind
from cortex_registry.handlers.overview import Gpu, Host, ModelThroughput, Summary


class GpuAnswer(BaseModel):
    """One GPU."""

    node: str
    hostname: str
    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int
    memory_promised: int = Field(description="to replicas that Cortex has placed there")
    replicas: list[str]
    models: list[str]

    @classmethod
    def of(cls, gpu: Gpu) -> "GpuAnswer":
        return cls(
            node=gpu.node.id,
            hostname=gpu.node.hostname,
            index=gpu.info.index,
            uuid=gpu.info.uuid,
            name=gpu.info.name,
            memory_total=gpu.info.memory_total,
            memory_free=gpu.info.memory_free,
            memory_promised=gpu.promised,
            replicas=[replica.id for replica in gpu.replicas],
            models=sorted({replica.model_id for replica in gpu.replicas}),
        )


class GpuList(BaseModel):
    items: list[GpuAnswer]


class HostAnswer(BaseModel):
    """One host."""

    node: str
    hostname: str
    runtime: RuntimeKind
    cpu_count: int
    memory_total: int
    memory_available: int
    memory_promised: int
    gpus: int
    replicas: int
    engines: dict[str, str]

    @classmethod
    def of(cls, host: Host) -> "HostAnswer":
        node = host.node
        return cls(
            node=node.id,
            hostname=node.hostname,
            runtime=node.runtime,
            cpu_count=node.cpu_count,
            memory_total=node.memory_total,
            memory_available=node.memory_available,
            memory_promised=host.promised_memory,
            gpus=len(node.gpus),
            replicas=host.replicas,
            engines=node.engines,
        )


class HostList(BaseModel):
    items: list[HostAnswer]


class LoadAnswer(BaseModel):
    """What healthy engines said at their last probes."""

    slots_total: int
    running: int
    waiting: int


class ResourcesAnswer(BaseModel):
    """Sums over all hosts."""

    hosts: int
    cpu_count: int
    memory_total: int
    memory_available: int
    gpus: int
    gpu_memory_total: int
    gpu_memory_free: int
    gpu_memory_promised: int


class SummaryAnswer(BaseModel):
    """Everything counted."""

    models: dict[str, int] = Field(description="by observed state; `unknown` while nothing can be observed")
    replicas: dict[str, int] = Field(description="engines that Cortex runs, by state")
    upstreams: dict[str, int] = Field(description="endpoints that are started, by verdict; `unprobed` without one")
    load: LoadAnswer
    resources: ResourcesAnswer

    @classmethod
    def of(cls, summary: Summary) -> "SummaryAnswer":
        load, hosts, gpus = summary.load, summary.hosts, summary.gpus
        return cls(
            models=dict(summary.models),
            replicas=dict(summary.replicas),
            upstreams=dict(summary.upstreams),
            load=LoadAnswer(slots_total=load.slots_total, running=load.running, waiting=load.waiting),
            resources=ResourcesAnswer(
                hosts=len(hosts),
                cpu_count=sum(host.node.cpu_count for host in hosts),
                memory_total=sum(host.node.memory_total for host in hosts),
                memory_available=sum(host.node.memory_available for host in hosts),
                gpus=len(gpus),
                gpu_memory_total=sum(gpu.info.memory_total for gpu in gpus),
                gpu_memory_free=sum(gpu.info.memory_free for gpu in gpus),
                gpu_memory_promised=sum(gpu.promised for gpu in gpus),
            ),
        )


class ThroughputRow(BaseModel):
    """What one model, or all of them, did in the window."""

    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    requests_per_second: float
    tokens_per_second: float = Field(description="prompt and completion")
    ttft_ms_p50: float | None = Field(description="median time to the first token; null for all models together")
    duration_ms_p50: float | None

    @classmethod
    def of(cls, row: ModelThroughput, window_s: float) -> "ThroughputRow":
        return cls(
            requests=row.requests,
            failed=row.failed,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            requests_per_second=round(row.requests / window_s, 3),
            tokens_per_second=round((row.prompt_tokens + row.completion_tokens) / window_s, 3),
            ttft_ms_p50=row.ttft_ms_p50,
            duration_ms_p50=row.duration_ms_p50,
        )


class ThroughputAnswer(BaseModel):
    """Requests that began in the window and are settled."""

    since: datetime
    window_s: int
    total: ThroughputRow
    models: dict[str, ThroughputRow]

    @classmethod
    def of(cls, since: datetime, window_s: int, rows: Sequence[ModelThroughput]) -> "ThroughputAnswer":
        total = ModelThroughput(
            model="",
            requests=sum(row.requests for row in rows),
            failed=sum(row.failed for row in rows),
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            completion_tokens=sum(row.completion_tokens for row in rows),
            ttft_ms_p50=None,
            duration_ms_p50=None,
        )
        return cls(
            since=since,
            window_s=window_s,
            total=ThroughputRow.of(total, window_s),
            models={row.model: ThroughputRow.of(row, window_s) for row in rows},
        )
