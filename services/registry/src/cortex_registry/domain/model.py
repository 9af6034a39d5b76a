"""A model's desired state: made from a specification, changed by an administrator."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, EngineType
from cortex_contracts.events import ModelArchivedV1, ModelCreatedV1, ModelDeletedV1, ModelUpdatedV1
from cortex_kit.errors import DomainError
from cortex_registry.domain.arguments import check_arguments, check_environment
from cortex_registry.domain.paths import below_root
from cortex_registry.domain.specification import (
    AnySpecification,
    CommonFields,
    LlamaCppSpecification,
    VllmSpecification,
    invalid_request,
)

MAX_DOCUMENT_BYTES = 60 * 1024
"""A KV value holds 64 KiB; a larger document could never reach the other services."""

_PATH_OPTIONS = ("mmproj_path", "draft_model_path", "chat_template_file", "grammar_file")
_COMPANIONS = ("tokenizer", "hf_config_path")
_COMMON = tuple(field for field in CommonFields.model_fields if field not in ("hf_token", "served_model_name"))
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, slots=True)
class Model:
    """A stored model. `document.aggregateversion` is the row's version."""

    document: ModelDocumentV1
    created_at: datetime
    updated_at: datetime
    desired_since: datetime
    archived_at: datetime | None = None
    """Set: kept with its names, but nowhere seen, published or run."""

    @property
    def id(self) -> ModelId:
        return self.document.id

    @property
    def version(self) -> int:
        return self.document.aggregateversion

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may ask for."""
        return (self.document.served_model_name, *self.document.aliases)


def check(specification: AnySpecification, models_root: str | None) -> AnySpecification:
    """Refuse what no engine may be given; returns the specification with its paths made relative.

    Raises:
        DomainError: 422 with a code that names the rule.
    """
    check_arguments(EngineType(specification.engine_type), specification.extra_args)
    check_environment(specification.extra_env)
    changes: dict[str, Any] = {}
    for field in ("local_path", *_PATH_OPTIONS):
        # Which of them there are depends on the engine.
        path = getattr(specification, field) if field in type(specification).model_fields else None
        if path is not None:
            changes[field] = below_root(path, field, models_root)
    if isinstance(specification, LlamaCppSpecification):
        changes["lora_adapters"] = tuple(
            adapter.model_copy(update={"path": below_root(adapter.path, f"lora_adapters.{index}.path", models_root)})
            for index, adapter in enumerate(specification.lora_adapters)
        )
    else:
        changes |= _checked_companions(specification, models_root)
        changes["lora_modules"] = tuple(
            module
            if module.path is None
            else module.model_copy(update={"path": below_root(module.path, f"lora_modules.{index}.path", models_root)})
            for index, module in enumerate(specification.lora_modules)
        )
    return specification.model_copy(update=changes)


def _checked_companions(specification: VllmSpecification, models_root: str | None) -> dict[str, str]:
    """Tokenizer and configuration: folders beside a local model, repositories beside a downloaded one."""
    found: dict[str, str] = {}
    for field, value in zip(_COMPANIONS, (specification.tokenizer, specification.hf_config_path), strict=True):
        if value is None:
            continue
        if specification.local_path is not None:
            found[field] = below_root(value, field, models_root)
        elif _REPOSITORY.fullmatch(value) is None or ".." in value:
            message = f"{field} must be a Hugging Face repository, as the model itself."
            raise invalid_request([{"field": field, "code": "not_a_repository", "message": message}])
    return found


def describe(document: ModelDocumentV1) -> dict[str, JsonValue]:
    """The flat form of the admin API, without what only the registry says (id, state) and without secrets."""
    flat: dict[str, JsonValue] = document.model_dump(
        mode="json", include={*_COMMON, "served_model_name", "engine_type"}
    )
    options = document.llamacpp if document.engine_type is EngineType.LLAMACPP else document.vllm
    return flat | (options.model_dump(mode="json") if options is not None else {})


def merge(document: ModelDocumentV1, patch: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The flat form after a patch: a field replaces the old one whole, null puts its default back.

    Raises:
        DomainError: 422 `invalid_request`: the engine of a model cannot change.
    """
    if patch.get("engine_type", document.engine_type.value) != document.engine_type.value:
        message = "engine_type cannot change: create another model."
        raise DomainError(
            "invalid_request",
            message,
            status=422,
            details={"errors": [{"field": "engine_type", "code": "immutable", "message": message}]},
        )
    merged = describe(document) | dict(patch)
    return {field: value for field, value in merged.items() if value is not None}


def new_document(specification: AnySpecification, *, model_id: ModelId, hf_token_sealed: str | None) -> ModelDocumentV1:
    """Version 1 of a model, stopped.

    Raises:
        DomainError: 422 `model_too_large`.
    """
    return _with_fields(
        {"id": model_id, "aggregateversion": 1, "desired_state": DesiredState.STOPPED}, specification, hf_token_sealed
    )


def changed_document(
    old: ModelDocumentV1, specification: AnySpecification, *, hf_token_sealed: str | None
) -> ModelDocumentV1:
    """The next version with other fields; desire and restart generation stay.

    Raises:
        DomainError: 422 `model_too_large`.
    """
    kept: dict[str, Any] = {
        "id": old.id,
        "aggregateversion": old.aggregateversion + 1,
        "desired_state": old.desired_state,
        "restart_generation": old.restart_generation,
        "external": old.external,
    }
    return _with_fields(kept, specification, hf_token_sealed)


def _with_fields(
    fixed: Mapping[str, Any], specification: AnySpecification, hf_token_sealed: str | None
) -> ModelDocumentV1:
    fields: dict[str, Any] = {field: getattr(specification, field) for field in _COMMON}
    fields |= {
        "served_model_name": specification.served_name,
        "engine_type": specification.engine_type,
        specification.engine_type: specification.options(),
        "hf_token_sealed": hf_token_sealed,
    }
    document = ModelDocumentV1.model_validate(fields | dict(fixed))
    size = len(document.model_dump_json().encode())
    if size > MAX_DOCUMENT_BYTES:
        message = f"The model's description takes {size} bytes; {MAX_DOCUMENT_BYTES} is the most."
        raise DomainError("model_too_large", message, status=422)
    return document


def changed_fields(old: ModelDocumentV1, new: ModelDocumentV1) -> tuple[str, ...]:
    """Names of the fields that differ, never their values."""
    before, after = describe(old), describe(new)
    changed = {field for field in before.keys() | after.keys() if before.get(field) != after.get(field)}
    if old.hf_token_sealed != new.hf_token_sealed:
        changed.add("hf_token")
    if old.desired_state is not new.desired_state:
        changed.add("desired_state")
    if old.restart_generation != new.restart_generation:
        changed.add("restart_generation")
    return tuple(sorted(changed))


def changes(old: ModelDocumentV1, new: ModelDocumentV1) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """What the changed fields were and are, for the audit log; a secret shows as `***` or null."""
    before, after = audited(old), audited(new)
    changed = changed_fields(old, new)
    return {field: before.get(field) for field in changed}, {field: after.get(field) for field in changed}


def audited(document: ModelDocumentV1) -> dict[str, JsonValue]:
    """Everything a change can touch, flat; a secret shows as `***` or null."""
    return describe(document) | {
        "desired_state": document.desired_state.value,
        "restart_generation": document.restart_generation,
        "hf_token": "***" if document.hf_token_sealed is not None else None,
    }


def with_desire(model: Model, desired: DesiredState, now: datetime, *, again: bool = False) -> Model | None:
    """The model asked to run or to stop; None when nothing changes.

    Args:
        again: the model failed and is asked to run once more: its replicas are made anew without waiting.
    """
    document = model.document
    if document.desired_state is desired and not again:
        return None
    generation = document.restart_generation + (1 if again and document.desired_state is desired else 0)
    changed = document.model_copy(
        update={
            "desired_state": desired,
            "restart_generation": generation,
            "aggregateversion": document.aggregateversion + 1,
        }
    )
    return replace(model, document=changed, updated_at=now, desired_since=now)


def restarted(model: Model, now: datetime) -> Model:
    """The model with its replicas made anew; asked to run when it was not."""
    document = model.document
    changed = document.model_copy(
        update={
            "desired_state": DesiredState.RUNNING,
            "restart_generation": document.restart_generation + 1,
            "aggregateversion": document.aggregateversion + 1,
        }
    )
    since = model.desired_since if document.desired_state is DesiredState.RUNNING else now
    return replace(model, document=changed, updated_at=now, desired_since=since)


def archived(model: Model, now: datetime) -> Model:
    """The model stopped and put away; its names stay its own."""
    document = model.document
    changed = document.model_copy(
        update={"desired_state": DesiredState.STOPPED, "aggregateversion": document.aggregateversion + 1}
    )
    since = now if document.desired_state is DesiredState.RUNNING else model.desired_since
    return replace(model, document=changed, updated_at=now, desired_since=since, archived_at=now)


def unarchived(model: Model, now: datetime) -> Model:
    """The model back again, stopped."""
    document = model.document
    changed = document.model_copy(update={"aggregateversion": document.aggregateversion + 1})
    return replace(model, document=changed, updated_at=now, archived_at=None)


def created(document: ModelDocumentV1) -> ModelCreatedV1:
    return ModelCreatedV1(**_head(document))


def updated(document: ModelDocumentV1, changed: tuple[str, ...]) -> ModelUpdatedV1:
    return ModelUpdatedV1(**_head(document), changed=changed)


def deleted(document: ModelDocumentV1) -> ModelDeletedV1:
    return ModelDeletedV1(**_head(document))


def put_away(document: ModelDocumentV1) -> ModelArchivedV1:
    return ModelArchivedV1(**_head(document))


def _head(document: ModelDocumentV1) -> dict[str, Any]:
    return {
        "model_id": document.id,
        "name": document.name,
        "served_model_name": document.served_model_name,
        "engine_type": document.engine_type,
        "task": document.task,
    }
