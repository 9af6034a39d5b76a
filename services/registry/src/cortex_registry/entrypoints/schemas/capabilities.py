"""Answers about what this installation can do, and what lies in its models folder."""

from pydantic import BaseModel, JsonValue

from cortex_contracts.enums import EngineType, Lifecycle, RoutingPolicy, RuntimeKind, Task
from cortex_contracts.library import LibraryEntryV1
from cortex_registry.domain.capabilities import FieldInfo


class EngineAnswer(BaseModel):
    """An engine, and every field of a model of it."""

    engine_type: EngineType
    enabled: bool
    """Whether new models may be made; those that exist run either way."""
    reason: str
    fields: tuple[FieldInfo, ...]


class NodeCapability(BaseModel):
    """A host, how it runs engines, and which versions of them."""

    id: str
    runtime: RuntimeKind
    gpus: int
    engines: dict[str, str]


class LimitsAnswer(BaseModel):
    """Bounds of requests."""

    max_body_bytes: int
    max_model_bytes: int
    max_page: int


class CapabilitiesAnswer(BaseModel):
    """What forms and scripts need to know before they make a model."""

    version: str
    engines: tuple[EngineAnswer, ...]
    tasks: tuple[Task, ...]
    lifecycles: tuple[Lifecycle, ...]
    routing_policies: tuple[RoutingPolicy, ...]
    nodes: tuple[NodeCapability, ...]
    runtimes: tuple[RuntimeKind, ...]
    limits: LimitsAnswer
    old_fields: tuple[str, ...]
    """Fields of the first Cortex that are understood or ignored with a warning."""


class BaseDirAnswer(BaseModel):
    """The models folder, as this registry sees it. It is a setting: CORTEX_MODELS_DIR."""

    base_dir: str | None
    readable: bool
    setting: str = "CORTEX_MODELS_DIR"


class FoldersAnswer(BaseModel):
    """Folders below the models folder that hold models."""

    base_dir: str | None
    items: list[str]


class FolderAnswer(BaseModel):
    """What lies in a folder, and which engine suits it."""

    folder: str
    has_gguf: bool
    has_safetensors: bool
    recommended_engine: EngineType | None
    reason: str
    items: list[LibraryEntryV1]
    complete: bool


class HfConfigAnswer(BaseModel):
    """A model's config.json. `source` says where it was read."""

    source: str
    config: dict[str, JsonValue]
