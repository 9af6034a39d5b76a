"""Recipes: configurations to make models of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from cortex_console.domain.formatting import time_cells
from cortex_console.domain.shapes import Row, row, text, whole
from cortex_console.domain.states import engine_name, task_name


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe."""

    id: str
    version: int
    name: str
    description: str
    engine: str
    task: str
    fields: Row
    author: str
    updated_at: str

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one recipe."""
        return cls(
            id=text(answer.get("id")),
            version=whole(answer.get("version")),
            name=text(answer.get("name")),
            description=text(answer.get("description")),
            engine=text(answer.get("engine_type")),
            task=text(answer.get("task")),
            fields=row(answer.get("fields")),
            author=text(answer.get("created_by")),
            updated_at=text(answer.get("updated_at")),
        )

    @property
    def source(self) -> str:
        """The file, folder or repository."""
        return text(self.fields.get("local_path")) or text(self.fields.get("repo_id"))

    def matches(self, search: str) -> bool:
        """Whether a list that is searched shows it."""
        words = f"{self.name} {self.description} {self.source}".lower()
        return all(word in words for word in search.lower().split())

    def table_row(self, now: datetime) -> dict[str, Any]:
        """Fields of a table's row; the acts are added by the page."""
        return {
            "id": self.id,
            "row_name": self.name,
            "name": self.name,
            "name_note": self.description,
            "engine": engine_name(self.engine),
            "engine_kind": self.engine,
            "task": task_name(self.task),
            "source": self.source,
            "author": self.author,
        } | time_cells("updated", self.updated_at, now)
