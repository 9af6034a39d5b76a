"""Models by the admin API."""

from cortex_console.domain.models import Load, ModelSummary, loads
from cortex_console.domain.shapes import Row, rows
from cortex_console.ports import AdminCalls


class ModelsApi:
    """Every method raises ConsoleError."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def list_all(self, *, archived: bool = False) -> list[ModelSummary]:
        """All of them, by name."""
        answer = await self._calls.get("/models", {"archived": "true" if archived else None})
        found = [ModelSummary.of(one) for one in rows(answer.get("items"))]
        return sorted(found, key=lambda model: (model.archived, model.name.lower()))

    async def loads(self, window_s: int = 60) -> dict[str, Load]:
        """Requests and tokens per second by served name."""
        return loads(await self._calls.get("/system/throughput", {"window_s": window_s}))

    async def act(self, model_id: str, act: str) -> Row:
        """Start, stop, restart, archive, unarchive, test."""
        return await self._calls.post(f"/models/{model_id}/{act}")

    async def clone(self, model_id: str, name: str) -> Row:
        """A new model with the same settings."""
        return await self._calls.post(f"/models/{model_id}/clone", {"name": name})

    async def delete(self, model_id: str) -> None:
        """Forget it."""
        await self._calls.delete(f"/models/{model_id}")
