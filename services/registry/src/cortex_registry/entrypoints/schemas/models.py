"""Answers about models."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.documents import EngineLoad, PullProgress
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import (
    DesiredState,
    EngineType,
    Lifecycle,
    ModelState,
    ReplicaState,
    RoutingPolicy,
    Task,
    Verdict,
)
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.model import describe
from cortex_registry.handlers.models import Changed
from cortex_registry.handlers.observation import Observed, ReplicaStatus


class ReplicaAnswer(BaseModel):
    """One observed replica."""

    id: str
    ordinal: int
    node: str
    state: ReplicaState
    reason: str
    since: datetime
    verdict: Verdict | None
    verdict_reason: str | None
    endpoint: str | None
    container: str | None
    exit_code: int | None
    restarts: int
    next_attempt_at: datetime | None
    pull: PullProgress | None
    gpus: tuple[int, ...]
    diagnosis: Diagnosis | None
    """Why it failed, and what to do about it, as far as its output tells."""
    warnings: tuple[str, ...]
    """What was left out or degraded when it was started."""
    load_seconds: float | None
    load: EngineLoad | None

    @classmethod
    def of(cls, status: ReplicaStatus) -> "ReplicaAnswer":
        verdict = status.verdict
        shared: dict[str, Any] = {
            field: getattr(status.replica, field)
            for field in cls.model_fields
            if field not in ("verdict", "verdict_reason", "load")
        }
        return cls(
            **shared,
            verdict=verdict.verdict if verdict is not None else None,
            verdict_reason=verdict.reason if verdict is not None else None,
            load=verdict.load if verdict is not None else None,
        )


class _CommonAnswer(BaseModel):
    """Fields of every model. `replicas` is how many are asked for, `replica_status` those observed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    served_model_name: str
    aliases: tuple[str, ...]
    task: Task
    repo_id: str | None
    local_path: str | None
    engine_image: str | None
    extra_args: tuple[str, ...]
    extra_env: dict[str, str]
    has_hf_token: bool
    replicas: int
    placement: Literal["auto"] | tuple[int, ...]
    lifecycle: Lifecycle
    idle_ttl_s: int | None
    request_defaults: dict[str, JsonValue]
    startup_timeout_s: int
    stop_timeout_s: int
    request_timeout_s: float
    stream_timeout_s: float
    routing_policy: RoutingPolicy
    fallbacks: tuple[str, ...]
    desired_state: DesiredState
    restart_generation: int
    version: int
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    """Set: put away, run by nobody; its names are still taken."""
    external: bool
    """Run by others; see /admin/upstreams."""
    state: ModelState | None
    """Observed; null while nothing could be observed yet."""
    reason: str
    since: datetime | None
    replica_status: tuple[ReplicaAnswer, ...]
    warnings: tuple[FieldWarning, ...] = ()
    """What the change was accepted with; empty in answers to a GET."""


class LlamaCppModelAnswer(_CommonAnswer, LlamaCppOptions):
    """A llama.cpp model, flat."""

    engine_type: Literal["llamacpp"]


class VllmModelAnswer(_CommonAnswer, VllmOptions):
    """A vLLM model, flat."""

    engine_type: Literal["vllm"]


ModelAnswer = LlamaCppModelAnswer | VllmModelAnswer


def changed_answer(changed: Changed) -> ModelAnswer:
    """A model after an act."""
    return model_answer(changed.observed, changed.warnings)


def model_answer(observed: Observed, warnings: tuple[FieldWarning, ...] = ()) -> ModelAnswer:
    """A model as the API shows it; its Hugging Face token never."""
    model, document = observed.model, observed.model.document
    fields: dict[str, Any] = describe(document) | {
        "id": model.id,
        "has_hf_token": document.hf_token_sealed is not None,
        "desired_state": document.desired_state,
        "restart_generation": document.restart_generation,
        "version": model.version,
        "created_at": model.created_at,
        "updated_at": model.updated_at,
        "archived_at": model.archived_at,
        "external": bool(document.external),
        "state": observed.state.state if observed.state is not None else None,
        "reason": observed.reason,
        "since": observed.state.since if observed.state is not None else None,
        "replica_status": tuple(ReplicaAnswer.of(status) for status in observed.replicas),
        "warnings": warnings,
    }
    kind = LlamaCppModelAnswer if document.engine_type is EngineType.LLAMACPP else VllmModelAnswer
    return kind.model_validate(fields)


class ModelList(BaseModel):
    items: list[LlamaCppModelAnswer | VllmModelAnswer]
