"""Answers about what the installation can do, its engine images, and its hosts' last hour. Memory in bytes."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from cortex_contracts.documents import NodeDocumentV1
from cortex_contracts.enums import EngineType, RuntimeKind
from cortex_contracts.images import ImagesResultV1
from cortex_registry.domain.trends import HostTrend
from cortex_registry.handlers.installation import Feature


class FeatureAnswer(BaseModel):
    """Something that may be possible here."""

    name: str = Field(examples=["backups"])
    available: bool
    reason: str | None = Field(description="Why not, and often what to set; null when it is available.")


class EngineSwitch(BaseModel):
    """An engine, and whether new models may be made of it."""

    engine_type: EngineType
    enabled: bool


class GpuKind(BaseModel):
    """A GPU of a host."""

    index: int
    name: str
    memory_total: int


class HostCapability(BaseModel):
    """A host and what it has to run engines with."""

    node: str
    hostname: str
    runtime: RuntimeKind
    cpu_count: int
    memory_total: int
    gpus: list[GpuKind]
    engines: dict[str, str] = Field(description="Engine to the version found there, as far as known.")

    @classmethod
    def of(cls, node: NodeDocumentV1) -> "HostCapability":
        gpus = [GpuKind(index=gpu.index, name=gpu.name, memory_total=gpu.memory_total) for gpu in node.gpus]
        return cls(
            node=node.id,
            hostname=node.hostname,
            runtime=node.runtime,
            cpu_count=node.cpu_count,
            memory_total=node.memory_total,
            gpus=gpus,
            engines=node.engines,
        )


class SystemCapabilitiesAnswer(BaseModel):
    """What this installation can do now. Fields of models: GET /admin/capabilities."""

    version: str
    engines: list[EngineSwitch]
    hosts: list[HostCapability]
    features: list[FeatureAnswer]

    @classmethod
    def of(
        cls, version: str, enabled: Sequence[str], nodes: Sequence[NodeDocumentV1], features: Sequence[Feature]
    ) -> "SystemCapabilitiesAnswer":
        return cls(
            version=version,
            engines=[EngineSwitch(engine_type=one, enabled=one.value in enabled) for one in EngineType],
            hosts=[HostCapability.of(node) for node in nodes],
            features=[
                FeatureAnswer(name=one.name, available=one.reason is None, reason=one.reason) for one in features
            ],
        )


class ImageAnswer(BaseModel):
    """An engine image of a host."""

    reference: str
    present: bool
    default_of: EngineType | None = Field(description="The engine whose models get it unless they name another.")
    id: str | None
    digest: str | None
    size: int | None
    created_at: datetime | None


class HostImages(BaseModel):
    """Engine images of one host: its defaults, those that models name, and other tags of the same repositories."""

    node: str
    reason: str | None = Field(description="Why nothing is listed; null when something is.")
    images: list[ImageAnswer]

    @classmethod
    def of(cls, result: ImagesResultV1) -> "HostImages":
        images = [ImageAnswer.model_validate(one, from_attributes=True) for one in result.images]
        return cls(node=result.node, reason=result.reason, images=images)


class ImageList(BaseModel):
    items: list[HostImages]


class GpuPointAnswer(BaseModel):
    """One GPU at one moment."""

    index: int
    memory_free: int
    memory_total: int
    utilization: int | None = Field(description="Percent; null where the device cannot tell.")


class HostPointAnswer(BaseModel):
    """One host at one moment."""

    at: datetime
    cpu_percent: float | None = Field(description="Of all cores together.")
    memory_available: int
    memory_promised: int
    gpus: list[GpuPointAnswer]


class HostTrendAnswer(BaseModel):
    """One host, the oldest point first."""

    node: str
    hostname: str
    cpu_count: int
    memory_total: int
    points: list[HostPointAnswer]


class TrendsAnswer(BaseModel):
    """Kept in the memory of the registry that answers: short, and empty after its start."""

    since: datetime
    step_s: float
    items: list[HostTrendAnswer]

    @classmethod
    def of(cls, since: datetime, step_s: float, trends: Sequence[HostTrend]) -> "TrendsAnswer":
        items = [HostTrendAnswer.model_validate(one, from_attributes=True) for one in trends]
        return cls(since=since, step_s=step_s, items=items)
