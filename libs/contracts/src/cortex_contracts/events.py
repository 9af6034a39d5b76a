"""Events: what happened, in the past tense. One frozen class per message and version; the subject is `<aggregate>.<event>`."""

from typing import ClassVar

from pydantic import Field

from cortex_contracts.base import ContractModel, KeyId, ModelId, NodeId, ReplicaId, UtcDatetime
from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.enums import EngineType, ModelState, Task, UsageOutcome


class Event(ContractModel):
    """Payload of an envelope. `SUBJECT` and `VERSION` give the CloudEvents type `<subject>.v<version>`."""

    SUBJECT: ClassVar[str]
    VERSION: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        """CloudEvents `type`, e.g. `model.created.v1`."""
        return f"{cls.SUBJECT}.v{cls.VERSION}"


class _ModelEvent(Event):
    model_id: ModelId
    name: str
    served_model_name: str
    engine_type: EngineType
    task: Task = Task.GENERATE


class ModelCreatedV1(_ModelEvent):
    SUBJECT: ClassVar[str] = "model.created"


class ModelUpdatedV1(_ModelEvent):
    """A committed change; `changed` names the fields, never their values."""

    SUBJECT: ClassVar[str] = "model.updated"
    changed: tuple[str, ...] = ()


class ModelDeletedV1(_ModelEvent):
    SUBJECT: ClassVar[str] = "model.deleted"


class ModelArchivedV1(_ModelEvent):
    SUBJECT: ClassVar[str] = "model.archived"


class ModelStateChangedV1(Event):
    """The projected state moved."""

    SUBJECT: ClassVar[str] = "model.state_changed"
    model_id: ModelId
    previous: ModelState | None = None
    state: ModelState
    reason: str
    since: UtcDatetime


class KeyCreatedV1(Event):
    SUBJECT: ClassVar[str] = "key.created"
    key_id: KeyId
    name: str
    prefix: str
    """First characters of the key, enough to recognise it, useless to use it."""


class KeyRevokedV1(Event):
    SUBJECT: ClassVar[str] = "key.revoked"
    key_id: KeyId
    name: str


class KeyUpdatedV1(Event):
    """A key's limits or rights changed, or it was rotated; `changed` names the fields, never their values."""

    SUBJECT: ClassVar[str] = "key.updated"
    key_id: KeyId
    name: str
    changed: tuple[str, ...] = ()


class _RecordEvent(Event):
    """A record of the registry that no other service reads."""

    id: str
    name: str


class _RecordUpdatedEvent(_RecordEvent):
    changed: tuple[str, ...] = ()


class OrgCreatedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "org.created"


class OrgUpdatedV1(_RecordUpdatedEvent):
    SUBJECT: ClassVar[str] = "org.updated"


class OrgDeletedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "org.deleted"


class UserCreatedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "user.created"


class UserUpdatedV1(_RecordUpdatedEvent):
    SUBJECT: ClassVar[str] = "user.updated"


class UserDeletedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "user.deleted"


class RecipeCreatedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "recipe.created"


class RecipeUpdatedV1(_RecordUpdatedEvent):
    SUBJECT: ClassVar[str] = "recipe.updated"


class RecipeDeletedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "recipe.deleted"


class WebhookCreatedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "webhook.created"


class WebhookUpdatedV1(_RecordUpdatedEvent):
    SUBJECT: ClassVar[str] = "webhook.updated"


class WebhookDeletedV1(_RecordEvent):
    SUBJECT: ClassVar[str] = "webhook.deleted"


class WebhookDisabledV1(_RecordEvent):
    """Cortex itself stopped sending to an endpoint."""

    SUBJECT: ClassVar[str] = "webhook.disabled"
    reason: str


class ModelDemandedV1(Event):
    """A request arrived for an on-demand model that does not run."""

    SUBJECT: ClassVar[str] = "model.demanded"
    model_id: ModelId
    served_model_name: str


class _ContainerEvent(Event):
    replica_id: ReplicaId
    model_id: ModelId
    ordinal: int
    engine_type: EngineType
    node: NodeId
    spec_hash: str


class ContainerPullingV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.pulling"
    image: str
    current_bytes: int
    total_bytes: int | None = None


class ContainerCreatedV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.created"
    container: str


class ContainerStartedV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.started"
    container: str
    endpoint: str


class ContainerAdoptedV1(_ContainerEvent):
    """A running engine was found by its labels and kept."""

    SUBJECT: ClassVar[str] = "container.adopted"
    container: str
    endpoint: str | None = None


class ContainerStoppedV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.stopped"
    reason: str
    exit_code: int | None = None


class ContainerFailedV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.failed"
    reason: str
    exit_code: int | None = None
    oom_killed: bool = False
    log_tail: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    restarts: int = 0
    next_attempt_at: UtcDatetime | None = None


class ContainerRemovedV1(_ContainerEvent):
    SUBJECT: ClassVar[str] = "container.removed"
    reason: str = ""


class PlacementRejectedV1(Event):
    """No set of devices fits; carries what was tried and why."""

    SUBJECT: ClassVar[str] = "placement.rejected"
    model_id: ModelId
    ordinal: int
    reason: str
    asked_bytes: int | None = None
    tried: tuple[str, ...] = ()
    would_fit: tuple[str, ...] = ()
    """Settings that would fit, in words."""


class NodeUpdatedV1(Event):
    SUBJECT: ClassVar[str] = "node.updated"
    node: NodeId
    gpu_count: int
    memory_available: int


class _UpstreamEvent(Event):
    replica_id: ReplicaId
    model_id: ModelId
    reason: str


class UpstreamHealthyV1(_UpstreamEvent):
    SUBJECT: ClassVar[str] = "upstream.healthy"
    streak: int


class UpstreamUnhealthyV1(_UpstreamEvent):
    SUBJECT: ClassVar[str] = "upstream.unhealthy"
    streak: int


class UpstreamSuspectedV1(_UpstreamEvent):
    """The gateway could not reach a replica; asks health to look now."""

    SUBJECT: ClassVar[str] = "upstream.suspected"


class UsageRecordedV1(Event):
    """A request was settled. Stream USAGE; `request_id` makes it idempotent."""

    SUBJECT: ClassVar[str] = "usage.recorded"
    request_id: str
    key_id: KeyId
    user_id: str | None = None
    org_id: str | None = None
    model_id: ModelId | None = None
    model: str
    """Name the client asked for."""
    engine_type: EngineType | None = None
    replica_id: ReplicaId | None = None
    task: Task = Task.GENERATE
    route: str
    """Path of the API, e.g. /v1/chat/completions."""
    stream: bool
    status: int
    outcome: UsageOutcome
    prompt_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    estimated: bool = False
    """True when the engine never reported usage and the counts come from what was sent."""
    ttft_ms: float | None = None
    duration_ms: float
    started_at: UtcDatetime


class GgufInspectedV1(Event):
    SUBJECT: ClassVar[str] = "gguf.inspected"
    path: str
    identity: str
    architecture: str
    quantization: str
    parameters: int


class GgufRejectedV1(Event):
    SUBJECT: ClassVar[str] = "gguf.rejected"
    path: str
    code: str
    reason: str


class GgufMergingV1(Event):
    """Progress of a merge."""

    SUBJECT: ClassVar[str] = "gguf.merging"
    path: str
    done_bytes: int
    total_bytes: int


class GgufMergedV1(Event):
    SUBJECT: ClassVar[str] = "gguf.merged"
    path: str
    parts: int
    size: int


ALL_EVENTS: tuple[type[Event], ...] = (
    ModelCreatedV1,
    ModelUpdatedV1,
    ModelDeletedV1,
    ModelArchivedV1,
    ModelStateChangedV1,
    KeyCreatedV1,
    KeyRevokedV1,
    KeyUpdatedV1,
    OrgCreatedV1,
    OrgUpdatedV1,
    OrgDeletedV1,
    UserCreatedV1,
    UserUpdatedV1,
    UserDeletedV1,
    RecipeCreatedV1,
    RecipeUpdatedV1,
    RecipeDeletedV1,
    WebhookCreatedV1,
    WebhookUpdatedV1,
    WebhookDeletedV1,
    WebhookDisabledV1,
    ModelDemandedV1,
    ContainerPullingV1,
    ContainerCreatedV1,
    ContainerStartedV1,
    ContainerStoppedV1,
    ContainerFailedV1,
    ContainerAdoptedV1,
    ContainerRemovedV1,
    PlacementRejectedV1,
    NodeUpdatedV1,
    UpstreamHealthyV1,
    UpstreamUnhealthyV1,
    UpstreamSuspectedV1,
    UsageRecordedV1,
    GgufInspectedV1,
    GgufRejectedV1,
    GgufMergingV1,
    GgufMergedV1,
)

EVENT_BY_TYPE: dict[str, type[Event]] = {event.type_name(): event for event in ALL_EVENTS}
