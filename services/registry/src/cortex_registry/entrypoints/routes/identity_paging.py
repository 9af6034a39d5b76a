"""Query parameters of lists of users and organisations."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import Depends, Query
from pydantic import AfterValidator

from cortex_registry.domain.text import require_storable
from cortex_registry.handlers.identity_ports import Page

MAX_IDS = 200


class Identified(Protocol):
    """Something with an id."""

    @property
    def id(self) -> str: ...


def _storable(text: str | None) -> str | None:
    require_storable(text)
    return text


def _page(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[uuid.UUID | None, Query(description="`next` of the piece before.")] = None,
) -> Page:
    return Page(limit, str(after) if after is not None else None)


PageOf = Annotated[Page, Depends(_page)]
SearchText = Annotated[str | None, Query(max_length=128), AfterValidator(_storable)]
Ids = Annotated[list[uuid.UUID] | None, Query(max_length=MAX_IDS, description="Repeatable.")]


def next_after(found: Sequence[Identified], page: Page) -> str | None:
    """Where the list goes on; None when this was all."""
    return found[-1].id if len(found) == page.limit else None
