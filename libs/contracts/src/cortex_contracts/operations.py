"""Request-reply messages about running models: a dry run, a live log, one real request."""

from pydantic import Field

from cortex_contracts.base import ContractModel, KeyId, ModelId, NodeId, ReplicaId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.estimates import EstimateResultV1


class PlacementV1(ContractModel):
    """Whether one replica would fit now, and where. Memory in bytes."""

    fits: bool | None = None
    """None when nobody can tell; `reason` says why."""
    reason: str
    node: NodeId | None = None
    gpus: tuple[int, ...] = ()
    """Indices that would be used; empty is CPU only."""
    asked: dict[str, int] = Field(default_factory=dict)
    """Bytes asked per device: `cpu` or a GPU's uuid."""
    evicts: tuple[ModelId, ...] = ()
    """On-demand models that would be stopped to make room."""
    proposals: tuple[str, ...] = ()
    """What would fit, in words."""


class DryRunRequestV1(ContractModel):
    """What would run for this model. Nothing is written, pulled or started."""

    model: ModelDocumentV1
    estimate: EstimateResultV1 | None = None
    """The inspector's estimate, if the caller has one."""


class DryRunResultV1(ContractModel):
    """`env` holds names and values but no secrets; a secret's value is `***`."""

    node: NodeId
    image: str | None = None
    argv: tuple[str, ...]
    env: dict[str, str] = Field(default_factory=dict)
    spec_hash: str
    placement: PlacementV1
    warnings: tuple[str, ...] = ()


class LogsFollowRequestV1(ContractModel):
    """Copy an engine's output to `deliver`: first the last `tail` lines, then what comes.

    Ask again with the same `deliver` before `RENEW_S` have passed to keep it going; it ends by itself otherwise.
    """

    model_id: ModelId
    ordinal: int = 0
    tail: int = Field(default=200, ge=0, le=5000)
    deliver: str = Field(min_length=1, max_length=256)
    stop: bool = False
    """The reader has gone: end this copy now. Needs no answer."""


class LogsFollowStartedV1(ContractModel):
    """`renewed` is True when this copy was running already."""

    replica_id: ReplicaId
    renewed: bool = False


class LogsChunkV1(ContractModel):
    """A message on `deliver`. `sequence` grows by one: a gap means lost lines. An empty `lines` is a sign of life."""

    sequence: int
    lines: tuple[str, ...] = ()
    skipped: int = 0
    """Lines that were dropped before these because the reader was too slow."""
    ended: str | None = None
    """Set on the last message: why no more will come."""


RENEW_S = 15.0


class TestRequestV1(ContractModel):
    """Send one small real request to a model's healthy replica (or a given one)."""

    __test__ = False

    model_id: ModelId
    ordinal: int | None = None
    prompt: str | None = Field(default=None, max_length=4096)


class TestResultV1(ContractModel):
    """`ok` False carries the engine's own words in `error`."""

    __test__ = False

    replica_id: ReplicaId
    ok: bool
    status: int | None = None
    duration_ms: float
    output: str | None = None
    """Generated text, shape of the embedding, or the ranking, in a few words."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


class ProbeRequestV1(ContractModel):
    """Probe the replicas of one model now, or all of them. Every instance hears it, one answers."""

    model_id: ModelId | None = None
    replica_id: ReplicaId | None = None
    """Only this one; the instance that probes it answers, and no other."""


class ProbeResultV1(ContractModel):
    """`replicas` are being probed; verdicts follow in the bucket."""

    replicas: tuple[ReplicaId, ...] = ()


class CancelRequestV1(ContractModel):
    """End a running request of an API key. Every gateway hears it; the one that has the request answers."""

    key_id: KeyId
    request_id: str = Field(min_length=1, max_length=64)
    """As the client knows it (x-request-id)."""


class CancelResultV1(ContractModel):
    """The request was told to end; it is settled with what was sent."""

    request_id: str
