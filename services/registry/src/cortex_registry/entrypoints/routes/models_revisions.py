"""Routes of revisions."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.models import ONE, ONE_MODEL
from cortex_registry.entrypoints.schemas.models import ModelAnswer, changed_answer
from cortex_registry.entrypoints.schemas.models_acts import (
    ComparisonAnswer,
    RevisionAnswer,
    RevisionDetail,
    RevisionList,
    RollbackRequest,
)
from cortex_registry.handlers.models_revisions import ModelRevisions

_MOST = 2**53


class RevisionRoutes:
    """/admin/models/{ref}/revisions and /rollback."""

    def __init__(self, revisions: ModelRevisions) -> None:
        self._revisions = revisions

    def router(self) -> APIRouter:
        routes = Routes("models")
        read = Right.MODELS_READ
        routes.add("GET", f"{ONE}/revisions", self.list_of, read)
        routes.add("GET", f"{ONE}/revisions/diff", self.diff, read)
        routes.add("GET", f"{ONE}/revisions/{{version}}", self.show, read)
        routes.add("POST", f"{ONE}/rollback", self.roll_back, Right.MODELS_WRITE, response_model=ONE_MODEL)
        return routes.router

    async def list_of(
        self,
        reference: str,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int | None, Query(ge=1, le=_MOST, description="`next` of the page before.")] = None,
    ) -> RevisionList:
        """Every version the model had, newest first. A deleted model is found by its id."""
        found = await self._revisions.list_of(reference, before=after, limit=limit)
        more = str(found[-1].version) if len(found) == limit else None
        return RevisionList(items=[RevisionAnswer.of(revision) for revision in found], next=more)

    async def show(self, reference: str, version: Annotated[int, Path(ge=1, le=_MOST)]) -> RevisionDetail:
        """One version with its whole configuration."""
        return RevisionDetail.showing(await self._revisions.show(reference, version))

    async def diff(
        self,
        reference: str,
        before: Annotated[int, Query(ge=1, le=_MOST, alias="from")],
        after: Annotated[int | None, Query(ge=1, le=_MOST, alias="to", description="The newest when left out.")] = None,
    ) -> ComparisonAnswer:
        """What differs between two versions, field by field."""
        return ComparisonAnswer.of(await self._revisions.compare(reference, before, after))

    async def roll_back(
        self, reference: str, body: RollbackRequest, caller: CallerOf, expected: IfMatch, response: Response
    ) -> ModelAnswer:
        """A new version with an old configuration. Desired state, archive and the Hugging Face token stay as they are."""
        changed = await self._revisions.roll_back(reference, body.version, caller, expected=expected)
        show_version(response, changed.observed.model.version)
        return changed_answer(changed)
