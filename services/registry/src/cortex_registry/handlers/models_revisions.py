"""Revisions of models: look, compare, come back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cortex_contracts.base import ModelId
from cortex_kit.errors import DomainError
from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.model import Model, changed_fields, check, merge, updated
from cortex_registry.domain.revisions import Difference, Revision, diff, rolled_back
from cortex_registry.domain.specification import parse_specification
from cortex_registry.domain.text import is_id
from cortex_registry.domain.versions import Expected
from cortex_registry.handlers.models import Changed
from cortex_registry.handlers.models_editor import Change, ModelEditor, act_of, require_own
from cortex_registry.handlers.observation import Observation


class RevisionRepository(Protocol):
    """Revisions in the database. Raises DatabaseUnavailableError."""

    async def list_of(self, model_id: ModelId, *, before: int | None, limit: int) -> Sequence[Revision]:
        """Newest first; with `before` only older ones."""
        ...

    async def find(self, model_id: ModelId, versions: Sequence[int]) -> Sequence[Revision]:
        """Those of the versions that there are."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two revisions and what differs."""

    before: Revision
    after: Revision
    differences: tuple[Difference, ...]


class ModelRevisions:
    """Errors: DomainError 404 `model_not_found`, `revision_not_found`."""

    def __init__(self, editor: ModelEditor, repository: RevisionRepository, observation: Observation) -> None:
        self._editor = editor
        self._repository = repository
        self._observation = observation

    async def list_of(self, reference: str, *, before: int | None, limit: int) -> Sequence[Revision]:
        """Newest first. A deleted model still has its revisions, by id."""
        model_id = await self._id_of(reference)
        found = await self._repository.list_of(model_id, before=before, limit=limit)
        if not found and before is None:
            raise _unknown_model(reference)
        return found

    async def show(self, reference: str, version: int) -> Revision:
        """One revision with its whole configuration."""
        (found,) = await self._find(await self._id_of(reference), (version,))
        return found

    async def compare(self, reference: str, before: int, after: int | None) -> Comparison:
        """What differs between two; `after` None is the newest."""
        model_id = await self._id_of(reference)
        if after is None:
            newest = await self._repository.list_of(model_id, before=None, limit=1)
            if not newest:
                raise _unknown_model(reference)
            after = newest[0].version
        old, new = await self._find(model_id, (before, after))
        return Comparison(old, new, diff(old.document, new.document))

    async def roll_back(self, reference: str, version: int, caller: Caller, *, expected: Expected = None) -> Changed:
        """A new version with the configuration of an old one; whether it runs or is archived stays.

        Raises:
            DomainError: also 409 `name_taken`; 422 when today's rules refuse the old configuration.
        """
        warnings: list[FieldWarning] = []

        async def decide(model: Model) -> Change | None:
            require_own(model)
            (revision,) = await self._find(model.id, (version,))
            document = rolled_back(model.document, revision.document)
            check(parse_specification(merge(document, {})), self._editor.rules.models_root)
            warnings[:] = _about_token(model, revision)
            fields = changed_fields(model.document, document)
            if not fields:
                return None
            after = replace(model, document=document, updated_at=self._editor.clock.now())
            return Change(after, act_of(caller, "model.rollback", updated(document, fields), (model, after)))

        model, change = await self._editor.change(reference, decide, expected=expected)
        fields = change.act.changed if change is not None else ()
        return Changed(self._observation.observe(model), tuple(warnings), fields)

    async def _id_of(self, reference: str) -> ModelId:
        model = await self._editor.repository.find(reference)
        if model is not None:
            return model.id
        if is_id(reference):
            return ModelId(reference)
        raise _unknown_model(reference)

    async def _find(self, model_id: ModelId, versions: Sequence[int]) -> Sequence[Revision]:
        found = {revision.version: revision for revision in await self._repository.find(model_id, versions)}
        for version in versions:
            if version not in found:
                message = f"There is no revision {version} of this model. See GET /admin/models/{model_id}/revisions."
                raise DomainError("revision_not_found", message, status=404)
        return [found[version] for version in versions]


def _unknown_model(reference: str) -> DomainError:
    message = f"There is no model {reference[:200]!r}. List them with GET /admin/models."
    return DomainError("model_not_found", message, status=404)


def _about_token(model: Model, revision: Revision) -> list[FieldWarning]:
    if model.document.hf_token_sealed == revision.document.hf_token_sealed:
        return []
    message = "The Hugging Face token stays as it is now: secrets are not rolled back."
    return [FieldWarning(field="hf_token", code="kept", message=message)]
