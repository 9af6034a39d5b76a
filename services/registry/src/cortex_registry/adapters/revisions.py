"""Revisions in Postgres. They are written with each change of a model (adapters/models.py) and outlive it."""

from collections.abc import Sequence

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.revisions import Revision

_SQL = load_queries("revisions")
_BEYOND = 2**62


class PostgresRevisions:
    """RevisionRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_of(self, model_id: ModelId, *, before: int | None, limit: int) -> Sequence[Revision]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_revisions"], model_id, before or _BEYOND, limit)
        return [_revision(row) for row in rows]

    async def find(self, model_id: ModelId, versions: Sequence[int]) -> Sequence[Revision]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["find_revisions"], model_id, list(versions))
        return [_revision(row) for row in rows]


def _revision(row: Row) -> Revision:
    return Revision(
        model_id=ModelId(str(row["model_id"])),
        version=row["version"],
        action=row["action"],
        author=row["author"],
        at=row["at"],
        request_id=row["request_id"],
        changed=tuple(row["changed"]),
        document=ModelDocumentV1.model_validate_json(row["document"]),
    )
