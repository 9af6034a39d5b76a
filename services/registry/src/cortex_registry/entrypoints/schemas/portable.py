"""Answers about models in files."""

from pydantic import BaseModel

from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.portable import Outcome
from cortex_registry.handlers.portable import ImportResult


class ImportedAnswer(BaseModel):
    """What became, or would become, of one model of a file."""

    index: int
    outcome: Outcome
    name: str
    served_model_name: str
    id: str | None
    code: str
    """Why it failed or was skipped."""
    message: str
    warnings: tuple[FieldWarning, ...]
    missing_secrets: tuple[str, ...]
    """Secrets that the exported model had: set them before it starts."""


class ImportAnswer(BaseModel):
    """`applied` is False for a dry run."""

    applied: bool
    dry_run: bool
    items: list[ImportedAnswer]

    @classmethod
    def of(cls, result: ImportResult, *, dry_run: bool) -> "ImportAnswer":
        items = [ImportedAnswer.model_validate(one, from_attributes=True) for one in result.items]
        return cls(applied=result.applied, dry_run=dry_run, items=items)
