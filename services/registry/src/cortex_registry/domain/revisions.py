"""Versions that a model had: what differs between two, and how to come back to one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_registry.domain.model import audited, changed_fields


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a model, and who made it."""

    model_id: ModelId
    version: int
    action: str
    author: str
    at: datetime
    request_id: str | None
    changed: tuple[str, ...]
    document: ModelDocumentV1

    def described(self) -> dict[str, JsonValue]:
        """All its fields, flat; a secret shows as `***` or null."""
        return audited(self.document)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs."""

    field: str
    before: JsonValue
    after: JsonValue


def diff(before: ModelDocumentV1, after: ModelDocumentV1) -> tuple[Difference, ...]:
    """Every field that differs, by name. That a secret changed is told, what it is never."""
    was, now = audited(before), audited(after)
    return tuple(Difference(field, was.get(field), now.get(field)) for field in changed_fields(before, after))


def rolled_back(present: ModelDocumentV1, old: ModelDocumentV1) -> ModelDocumentV1:
    """The next version of `present` with the configuration of `old`.

    Desired state, restart generation and the Hugging Face token stay as they are now.
    """
    kept: Mapping[str, object] = {
        "id": present.id,
        "aggregateversion": present.aggregateversion + 1,
        "desired_state": present.desired_state,
        "restart_generation": present.restart_generation,
        "hf_token_sealed": present.hf_token_sealed,
        "external": present.external,
    }
    return old.model_copy(update=dict(kept))
