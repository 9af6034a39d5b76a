"""Answers about what was done with models, and what their engines say."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cortex_contracts.base import NodeId
from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import EngineType, ModelState, Verdict
from cortex_contracts.estimates import EstimateResultV1
from cortex_contracts.operations import PlacementV1
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.revisions import Revision
from cortex_registry.entrypoints.schemas.models import (
    LlamaCppModelAnswer,
    ModelAnswer,
    ReplicaAnswer,
    VllmModelAnswer,
    changed_answer,
)
from cortex_registry.handlers.models_dry_run import DryRun
from cortex_registry.handlers.models_revisions import Comparison
from cortex_registry.handlers.models_runtime import Applied, is_ready
from cortex_registry.handlers.observation import Observed

FreeFields = Annotated[
    dict[str, JsonValue],
    Field(
        description="Fields of a model, flat, as GET /admin/capabilities lists them; null puts a default back.",
        examples=[{"replicas": 2, "request_defaults": {"temperature": 0.2}}],
    ),
]


class RevisionAnswer(BaseModel):
    """Who made a version of a model, when, in which request."""

    version: int
    action: str
    author: str
    at: datetime
    request_id: str | None
    changed: tuple[str, ...]

    @classmethod
    def of(cls, revision: Revision) -> "RevisionAnswer":
        return cls.model_validate(revision, from_attributes=True)


class RevisionDetail(RevisionAnswer):
    """With the whole configuration; a secret shows as `***` or null."""

    fields: dict[str, JsonValue]

    @classmethod
    def showing(cls, revision: Revision) -> "RevisionDetail":
        return cls(**RevisionAnswer.of(revision).model_dump(), fields=revision.described())


class RevisionList(BaseModel):
    """Newest first. `next` goes into `after` for older ones."""

    items: list[RevisionAnswer]
    next: str | None = None


class DifferenceAnswer(BaseModel):
    """One field that differs."""

    field: str
    before: JsonValue
    after: JsonValue


class ComparisonAnswer(BaseModel):
    """Two revisions and what differs."""

    before: RevisionAnswer
    after: RevisionAnswer
    items: list[DifferenceAnswer]

    @classmethod
    def of(cls, comparison: Comparison) -> "ComparisonAnswer":
        return cls(
            before=RevisionAnswer.of(comparison.before),
            after=RevisionAnswer.of(comparison.after),
            items=[DifferenceAnswer.model_validate(one, from_attributes=True) for one in comparison.differences],
        )


class RollbackRequest(BaseModel):
    """The version to come back to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"version": 3}})

    version: int = Field(ge=1, le=2**53)


class CloneRequest(BaseModel):
    """A new name, and any fields that shall differ."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"example": {"name": "qwen for tests", "replicas": 1, "idle_ttl_s": None}}
    )

    name: str = Field(min_length=1, max_length=128)


class TestRequest(BaseModel):
    """Which replica to ask, and what. Everything may be left out."""

    __test__ = False
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"prompt": "Say hello."}})

    ordinal: int | None = Field(default=None, ge=0, le=1023)
    prompt: str | None = Field(default=None, min_length=1, max_length=4096)


class ReadinessAnswer(BaseModel):
    """Whether requests are answered now, and if not, why. Reading it changes nothing."""

    ready: bool
    state: ModelState | None
    reason: str
    since: datetime | None
    replicas: tuple[ReplicaAnswer, ...]

    @classmethod
    def of(cls, observed: Observed) -> "ReadinessAnswer":
        return cls(
            ready=is_ready(observed),
            state=observed.state.state if observed.state is not None else None,
            reason=observed.reason,
            since=observed.state.since if observed.state is not None else None,
            replicas=tuple(ReplicaAnswer.of(status) for status in observed.replicas),
        )


class ApplyAnswer(BaseModel):
    """`changed` names what the act changed; `outdated` the replicas that are being replaced, null when not known."""

    model: Annotated[LlamaCppModelAnswer | VllmModelAnswer, Field(discriminator="engine_type")]
    changed: tuple[str, ...]
    outdated: tuple[int, ...] | None
    message: str

    @classmethod
    def of(cls, applied: Applied) -> "ApplyAnswer":
        model: ModelAnswer = changed_answer(applied.changed)
        return cls(model=model, changed=applied.changed.fields, outdated=applied.outdated, message=applied.message)


class LogsAnswer(BaseModel):
    """The last lines of an engine's output; with `diagnose` what went wrong, as far as they tell."""

    lines: tuple[str, ...]
    diagnosis: Diagnosis | None = None
    reason: str | None = None


class ReplicaLoad(BaseModel):
    """Load of one replica at its last probe."""

    ordinal: int
    verdict: Verdict | None
    load: EngineLoad | None


class ModelMetrics(BaseModel):
    """State and load of one model; sums are null while no replica has told."""

    id: str
    served_model_name: str
    engine_type: EngineType
    state: ModelState | None
    reason: str
    replicas_wanted: int
    replicas_healthy: int
    running: int | None
    waiting: int | None
    slots_total: int | None
    replicas: tuple[ReplicaLoad, ...]

    @classmethod
    def of(cls, observed: Observed) -> "ModelMetrics":
        document = observed.model.document
        verdicts = [status.verdict for status in observed.replicas]
        loads = [verdict.load for verdict in verdicts if verdict is not None]
        return cls(
            id=document.id,
            served_model_name=document.served_model_name,
            engine_type=document.engine_type,
            state=observed.state.state if observed.state is not None else None,
            reason=observed.reason,
            replicas_wanted=document.replicas,
            replicas_healthy=sum(verdict is not None and verdict.verdict is Verdict.HEALTHY for verdict in verdicts),
            running=_sum(load.running for load in loads),
            waiting=_sum(load.waiting for load in loads),
            slots_total=_sum(load.slots_total for load in loads),
            replicas=tuple(
                ReplicaLoad(
                    ordinal=status.replica.ordinal,
                    verdict=status.verdict.verdict if status.verdict is not None else None,
                    load=status.verdict.load if status.verdict is not None else None,
                )
                for status in observed.replicas
            ),
        )


class MetricsList(BaseModel):
    items: list[ModelMetrics]


class CommandAnswer(BaseModel):
    """What would be run. A secret in `env` shows as `***`."""

    node: NodeId
    image: str | None
    argv: tuple[str, ...]
    env: dict[str, str]
    spec_hash: str


class DryRunAnswer(BaseModel):
    """Parts that cannot be had now are null, and their reason says why."""

    engine_type: Literal["llamacpp", "vllm"]
    served_model_name: str
    command: CommandAnswer | None
    command_reason: str
    estimate: EstimateResultV1 | None
    """Memory in bytes."""
    estimate_reason: str
    placement: PlacementV1 | None
    placement_reason: str
    warnings: tuple[FieldWarning, ...]

    @classmethod
    def of(cls, found: DryRun) -> "DryRunAnswer":
        run, warnings = found.run, list(found.warnings)
        texts = (*(run.warnings if run is not None else ()), *(found.estimate.warnings if found.estimate else ()))
        warnings += [FieldWarning(field="", code="engine", message=text) for text in dict.fromkeys(texts)]
        return cls(
            engine_type=found.document.engine_type.value,
            served_model_name=found.document.served_model_name,
            command=CommandAnswer.model_validate(run, from_attributes=True) if run is not None else None,
            command_reason=found.run_reason,
            estimate=found.estimate,
            estimate_reason=found.estimate_reason,
            placement=run.placement if run is not None else None,
            placement_reason=found.run_reason,
            warnings=tuple(warnings),
        )


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
