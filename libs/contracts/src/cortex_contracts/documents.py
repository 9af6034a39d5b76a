"""KV documents: the present state, last value per key. Each bucket has exactly one writer (docs/adr/0003)."""

from typing import Literal

from pydantic import Field, JsonValue

from cortex_contracts.base import ContractModel, KeyId, ModelId, NodeId, ReplicaId, UtcDatetime
from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import (
    DesiredState,
    EngineType,
    Lifecycle,
    ReplicaState,
    RoutingPolicy,
    RuntimeKind,
    Task,
    Verdict,
)


class Document(ContractModel):
    """A KV value. `aggregateversion` grows with every write of its writer; readers drop an older one."""

    aggregateversion: int = Field(ge=0)


class ExternalEndpoint(ContractModel):
    """An engine that Cortex routes to and probes but does not run. Its replica id is `<model id>-<position>`."""

    url: str
    """Base URL without /v1, e.g. http://10.0.0.5:8000."""
    served_name: str | None = None
    """The name the model has there; None when it is the model's own."""
    api_key_sealed: str | None = None
    """Sealed with CORTEX_SECRET_KEY; None sends no key."""


class ModelDocumentV1(Document):
    """Desired state of a model. Bucket `models`, key = id, writer registry."""

    id: ModelId
    name: str
    served_model_name: str
    aliases: tuple[str, ...] = ()
    task: Task = Task.GENERATE
    engine_type: EngineType
    repo_id: str | None = None
    local_path: str | None = None
    """Path below the models root, already checked by the registry."""
    engine_image: str | None = None
    llamacpp: LlamaCppOptions | None = None
    vllm: VllmOptions | None = None
    extra_args: tuple[str, ...] = ()
    extra_env: dict[str, str] = Field(default_factory=dict)
    hf_token_sealed: str | None = None
    """Sealed with CORTEX_SECRET_KEY (cortex_kit.secrets.seal); never a plain token."""
    replicas: int = Field(default=1, ge=0)
    placement: Literal["auto"] | tuple[int, ...] = "auto"
    lifecycle: Lifecycle = Lifecycle.ALWAYS
    idle_ttl_s: int | None = None
    desired_state: DesiredState = DesiredState.STOPPED
    restart_generation: int = 0
    """Part of the spec hash: raising it replaces the replicas."""
    request_defaults: dict[str, JsonValue] = Field(default_factory=dict)
    startup_timeout_s: int = 600
    stop_timeout_s: int = 30
    request_timeout_s: float = 300.0
    """Longest silence of the engine before the first byte, seconds."""
    stream_timeout_s: float = 300.0
    """Longest silence between two chunks, seconds."""
    routing_policy: RoutingPolicy = RoutingPolicy.LEAST_LOADED
    fallbacks: tuple[str, ...] = ()
    external: tuple[ExternalEndpoint, ...] = ()
    """Endpoints run by others. A model that has any is never run by an orchestrator; each counts as a replica."""
    correlation_id: str | None = None
    """Request that asked for the present version; goes into every event that follows from it."""
    causation_id: str | None = None
    """Event that announced the present version."""


class KeyDocumentV1(Document):
    """What the gateway needs to admit a client. Bucket `keys`, key = id, writer registry."""

    id: KeyId
    digest: str
    """Lower-case hex SHA-256 of the whole API key."""
    name: str
    scopes: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ()
    """Served names the key may use; empty means all."""
    ip_allowlist: tuple[str, ...] = ()
    expires_at: UtcDatetime | None = None
    user_id: str | None = None
    org_id: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent_streams: int | None = None
    tokens_per_month: int | None = None
    """Budget of prompt and completion tokens per calendar month (UTC)."""
    priority: Literal["interactive", "batch"] = "interactive"
    """Who waits when a model is busy."""


class PullProgress(ContractModel):
    """Progress of an image pull in bytes; `total` is unknown until every layer has reported."""

    current_bytes: int = 0
    total_bytes: int | None = None


class ReplicaDocumentV1(Document):
    """Observed state of one engine replica. Bucket `replicas`, key = id, writer orchestrator."""

    id: ReplicaId
    model_id: ModelId
    ordinal: int
    engine_type: EngineType
    node: NodeId
    runtime: RuntimeKind
    spec_hash: str
    """With the id, the input of the engine's own API key (cortex_kit.secrets.engine_api_key)."""
    state: ReplicaState
    reason: str = ""
    since: UtcDatetime
    endpoint: str | None = None
    """Base URL reachable by gateway and health, e.g. http://127.0.0.1:41235, without /v1."""
    container: str | None = None
    """Name or id of the container or process, for humans."""
    exit_code: int | None = None
    restarts: int = 0
    next_attempt_at: UtcDatetime | None = None
    pull: PullProgress | None = None
    gpus: tuple[int, ...] = ()
    diagnosis: Diagnosis | None = None
    """Why it failed, as far as its output tells."""
    warnings: tuple[str, ...] = ()
    """What was left out or degraded when it was started."""
    load_seconds: float | None = None
    """Measured time from start to healthy of this specification, seconds."""
    trouble: str | None = None
    """Why the replica cannot be observed now; the rest is as it was seen last."""
    correlation_id: str | None = None
    causation_id: str | None = None
    """The event about this replica that came last."""


class EngineLoad(ContractModel):
    """What the engine reported of itself at the last probe."""

    slots_total: int | None = None
    running: int | None = None
    """Requests being worked on."""
    waiting: int | None = None
    """Requests that the engine has queued."""
    context_per_slot: int | None = None
    work_total: int | None = None
    """A counter of the engine that grows with every request and with nothing else; its unit is the engine's own."""
    sampled_at: UtcDatetime | None = None
    """When the above was read; set while the replica drains, so that every reading is told."""
    kv_usage: float | None = None
    """Part of the KV cache that requests hold, 0 to 1, to two digits."""


class VerdictDocumentV1(Document):
    """Health of one replica. Bucket `verdicts`, key = replica id, writer health. Rewritten on a change only."""

    replica_id: ReplicaId
    model_id: ModelId
    spec_hash: str
    """Incarnation the verdict is about: it says nothing of a replica with another hash."""
    endpoint: str
    verdict: Verdict
    reason: str = ""
    since: UtcDatetime
    streak: int = 1
    load: EngineLoad = EngineLoad()
    correlation_id: str | None = None
    causation_id: str | None = None
    """The event about this verdict that came last."""
    prober: str | None = None
    """Member of the health service that wrote this; of two that both write, the one that ranks first goes on."""


class GpuInfo(ContractModel):
    """One GPU as NVML reports it; memory in bytes."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int
    utilization: int | None = None
    """Share of the last moment that it computed, percent."""


class NodeDocumentV1(Document):
    """Hardware of one host and what is promised of it. Bucket `nodes`, key = node id, writer orchestrator."""

    id: NodeId
    hostname: str
    runtime: RuntimeKind
    cpu_count: int
    memory_total: int
    memory_available: int
    gpus: tuple[GpuInfo, ...] = ()
    promised_memory: dict[str, int] = Field(default_factory=dict)
    """Bytes promised per device: `cpu` or a GPU uuid."""
    cpu_percent: float | None = None
    """Of all cores together, over the time since the document was last considered."""
    engines: dict[str, str] = Field(default_factory=dict)
    """Engine type -> binary or image version, as far as known."""


class GgufTensorShare(ContractModel):
    """How much of a model is stored in one tensor type. `bytes` without padding."""

    type: str
    """Name of the ggml type, like Q8_0."""
    tensors: int
    parameters: int
    bytes: int


class GgufDocumentV1(Document):
    """What the header of a GGUF file says. Bucket `gguf`, key = content identity, writer gguf-inspector."""

    identity: str
    path: str
    """Below the models root."""
    file_size: int
    gguf_version: int
    architecture: str
    name: str | None = None
    parameters: int
    quantization: str
    """Dominant tensor type by bytes, e.g. Q4_1, unless the file labels itself."""
    bits_per_weight: float
    context_length: int | None = None
    embedding_length: int | None = None
    block_count: int | None = None
    head_count: int | None = None
    head_count_kv: int | None = None
    expert_count: int | None = None
    vocab_size: int | None = None
    chat_template: bool = False
    tensor_count: int
    split_count: int = 1
    kind: str = "model"
    """`model`, `encoder` (embeds, never generates), `mmproj`, `lora`, `vocab` or `imatrix`; more may come."""
    size_label: str | None = None
    license: str | None = None
    basename: str | None = None
    base_models: tuple[str, ...] = ()
    """Names of the models it was made from; the first is what a LoRA or projector belongs to."""
    parameters_active: int | None = None
    """Parameters that one token uses: without the experts that are not chosen and without the input embedding table,
    unless that is the output matrix too. None for a model without experts."""
    tensor_bytes: int | None = None
    """Bytes of all tensors, without padding."""
    quantization_label: str | None = None
    """What `general.file_type` says; None when the file says nothing that is known."""
    quantization_guessed: bool = False
    """The converter marked its label as a guess."""
    quantization_dominant: str | None = None
    """The tensor type that holds most bytes, whatever the label says."""
    quantization_mix: tuple[GgufTensorShare, ...] = ()
    """By bytes, largest first."""
    feed_forward_length: int | None = None
    key_length: int | None = None
    """Width of a head's key in elements; from the embedding when the file does not say."""
    value_length: int | None = None
    head_counts_kv: tuple[int, ...] = ()
    """KV heads per layer where they differ (hybrids: 0 is a recurrent layer); empty when `head_count_kv` holds for all."""
    expert_used_count: int | None = None
    expert_shared_count: int | None = None
    expert_feed_forward_length: int | None = None
    sliding_window: int | None = None
    """Tokens seen by a sliding-window layer; None when there is none."""
    sliding_window_layers: tuple[bool, ...] = ()
    """Per layer, True for a sliding window; empty when there is none or the pattern is not known."""
    rope_freq_base: float | None = None
    rope_scaling_type: str | None = None
    rope_scaling_factor: float | None = None
    rope_original_context_length: int | None = None
    """Context in tokens before the scaling."""
    tokenizer_model: str | None = None
    tokenizer_pre: str | None = None
    tokenizer_merges: int | None = None
    chat_template_names: tuple[str, ...] = ()
    """Further templates beside the default one."""
    chat_capabilities: tuple[str, ...] = ()
    """What the chat template handles, by its text: `system`, `tools`, `reasoning`, `image`, `audio`, `video`."""
    modalities: tuple[str, ...] = ()
    """What a projector encodes: `image`, `audio`."""
    projector_type: str | None = None
    pooling_type: str | None = None
    """`none`, `mean`, `cls`, `last` or `rank`, for models that embed or rank."""


class LeaseDocumentV1(Document):
    """Who holds a lease. Bucket `leases`, key = lease name. The KV revision is the fencing token."""

    holder: str
    acquired_at: UtcDatetime
    address: str | None = None
    """`host:port` of the holder's own /metrics, where it has one to offer."""
