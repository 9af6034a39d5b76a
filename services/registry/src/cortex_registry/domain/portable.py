"""Models as a file: what goes out, and what a file becomes where other models are already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cortex_contracts.enums import DesiredState
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.model import Model, describe
from cortex_registry.domain.specification import AnySpecification

FORMAT = "cortex.models"
VERSION = 1
MAX_MODELS = 1000
MAX_NAME = 128
_BESIDE = ("desired_state", "archived", "missing_secrets")


class PortableFile(BaseModel):
    """Models in a form that another installation takes. Holds no secret: `missing_secrets` of a model names them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "example": {
                "format": FORMAT,
                "version": VERSION,
                "models": [{"name": "big", "engine_type": "vllm", "repo_id": "org/big", "desired_state": "stopped"}],
            }
        },
    )

    format: Literal["cortex.models"]
    version: Literal[1]
    exported_at: datetime | None = Field(
        default=None,
        description="a Unix time is taken, too",
        json_schema_extra={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}]},
    )
    models: tuple[dict[str, JsonValue], ...] = Field(min_length=1, max_length=MAX_MODELS)
    """Flat, as the admin API takes them, fields at their default of null left out."""


class Conflict(StrEnum):
    """What to do with a model whose served name or alias is taken."""

    ERROR = "error"
    SKIP = "skip"
    RENAME = "rename"
    REPLACE = "replace"


class Outcome(StrEnum):
    """What becomes of one model of a file."""

    CREATED = "created"
    RENAMED = "renamed"
    REPLACED = "replaced"
    SKIPPED = "skipped"
    FAILED = "failed"


def export(model: Model) -> dict[str, JsonValue]:
    """One model, without what is null, without its id, without secrets."""
    document = model.document
    fields: dict[str, JsonValue] = {name: value for name, value in describe(document).items() if value is not None}
    fields |= {"desired_state": document.desired_state.value, "archived": model.archived_at is not None}
    if document.hf_token_sealed is not None:
        fields["missing_secrets"] = ["hf_token"]
    return fields


@dataclass(frozen=True, slots=True)
class Portable:
    """One model of a file, taken apart: what describes it, and what is told beside."""

    fields: dict[str, JsonValue]
    desired_state: DesiredState
    archived: bool
    missing_secrets: tuple[str, ...]


def take_apart(entry: Mapping[str, JsonValue]) -> Portable:
    """An entry of a file; what stands beside the description is read leniently."""
    secrets = entry.get("missing_secrets")
    return Portable(
        fields={name: value for name, value in entry.items() if name not in _BESIDE},
        desired_state=DesiredState.RUNNING if entry.get("desired_state") == "running" else DesiredState.STOPPED,
        archived=entry.get("archived") is True,
        missing_secrets=tuple(str(one)[:64] for one in secrets[:8]) if isinstance(secrets, list) else (),
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What becomes of one model among those that are there. `problem` says why nothing can."""

    outcome: Outcome
    specification: AnySpecification
    target: Model | None = None
    warnings: tuple[FieldWarning, ...] = ()
    problem: str = ""


class Fitting:
    """Fits the models of one file, in their order, between those that are there and those before them."""

    def __init__(self, present: Sequence[Model], conflict: Conflict) -> None:
        self._conflict = conflict
        self._owners: dict[str, Model | None] = {name: model for model in present for name in model.names}
        """None: a model of this file."""

    def fit(self, specification: AnySpecification) -> Fitted:
        """Decide on the next model of the file."""
        clashing = [name for name in _names(specification) if name in self._owners]
        fitted = self._new(specification) if not clashing else self._resolve(specification, clashing)
        if fitted.outcome in (Outcome.CREATED, Outcome.RENAMED, Outcome.REPLACED):
            for name in fitted.target.names if fitted.target is not None else ():
                self._owners.pop(name, None)
            self._owners |= dict.fromkeys(_names(fitted.specification))
        return fitted

    def _new(self, specification: AnySpecification) -> Fitted:
        return Fitted(Outcome.CREATED, specification)

    def _resolve(self, specification: AnySpecification, clashing: Sequence[str]) -> Fitted:
        taken = f"{', '.join(clashing)} {'is' if len(clashing) == 1 else 'are'} taken by another model"
        match self._conflict:
            case Conflict.ERROR:
                return Fitted(Outcome.FAILED, specification, problem=f"{taken}.")
            case Conflict.SKIP:
                return Fitted(Outcome.SKIPPED, specification, problem=f"{taken}.")
            case Conflict.RENAME:
                return self._renamed(specification, clashing)
            case Conflict.REPLACE:
                return self._replacing(specification, clashing)
            case _:
                assert_never(self._conflict)

    def _renamed(self, specification: AnySpecification, clashing: Sequence[str]) -> Fitted:
        changes: dict[str, Any] = {}
        warnings: list[FieldWarning] = []
        served = specification.served_name
        aliases = tuple(alias for alias in specification.aliases if alias not in clashing)
        if served in clashing:
            number = 2
            while (free := _numbered(served, f"-{number}")) in self._owners or free in aliases:
                number += 1
            changes = {"served_model_name": free, "name": _numbered(specification.name, f" ({number})")}
            warnings.append(FieldWarning(field="served_model_name", code="renamed", message=f"{served} is now {free}."))
        if aliases != specification.aliases:
            changes["aliases"] = aliases
            dropped = ", ".join(alias for alias in specification.aliases if alias in clashing)
            warnings.append(FieldWarning(field="aliases", code="left_out", message=f"Taken by others: {dropped}."))
        return Fitted(Outcome.RENAMED, specification.model_copy(update=changes), warnings=tuple(warnings))

    def _replacing(self, specification: AnySpecification, clashing: Sequence[str]) -> Fitted:
        owners = {owner.id: owner for name in clashing if (owner := self._owners[name]) is not None}
        if len(owners) != 1 or any(self._owners[name] is None for name in clashing):
            problem = f"{', '.join(clashing)} belong to different models, or to one of this file: it replaces none."
            return Fitted(Outcome.FAILED, specification, problem=problem)
        (target,) = owners.values()
        if target.document.external:
            problem = f"{target.document.served_model_name} is run by others: it cannot be replaced."
            return Fitted(Outcome.FAILED, specification, problem=problem)
        if target.document.engine_type.value != specification.engine_type:
            problem = f"{target.document.served_model_name} is a model of {target.document.engine_type.value}."
            return Fitted(Outcome.FAILED, specification, problem=problem)
        return Fitted(Outcome.REPLACED, specification, target)


def _names(specification: AnySpecification) -> tuple[str, ...]:
    return (specification.served_name, *specification.aliases)


def _numbered(name: str, ending: str) -> str:
    return name[: MAX_NAME - len(ending)] + ending
