"""Webhooks, upstreams and backups by the admin API. Every method raises ConsoleError."""

import asyncio
from typing import Any

from cortex_console.adapters.people_api import PAGE, Slice
from cortex_console.domain.shapes import Row, rows, text
from cortex_console.ports import AdminCalls, Query

_JOBS = 20


class WebhooksApi:
    """Webhooks and their deliveries."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def list_some(self, after: str | None = None) -> Slice[Row]:
        """The oldest first."""
        answer = await self._calls.get("/webhooks", {"limit": PAGE, "after": after})
        return Slice(rows(answer.get("items")), _next(answer))

    async def get(self, webhook_id: str) -> Row:
        """One of them."""
        return await self._calls.get(f"/webhooks/{webhook_id}")

    async def create(self, values: dict[str, Any]) -> Row:
        """A new one, with its `secret`."""
        return await self._calls.post("/webhooks", values)

    async def update(self, webhook: Row, changes: dict[str, Any]) -> None:
        """Unless somebody else changed it meanwhile."""
        await self._calls.patch(f"/webhooks/{webhook['id']}", changes, version=int(webhook["version"]))

    async def delete(self, webhook_id: str) -> None:
        """With its deliveries."""
        await self._calls.delete(f"/webhooks/{webhook_id}")

    async def test(self, webhook_id: str) -> Row:
        """Send a test event now; what became of it."""
        return await self._calls.post(f"/webhooks/{webhook_id}/test")

    async def rotate(self, webhook_id: str, overlap_s: int) -> str:
        """A new secret."""
        answer = await self._calls.post(f"/webhooks/{webhook_id}/rotate-secret", {"overlap_s": overlap_s})
        return text(answer.get("secret"))

    async def deliveries(self, webhook_id: str, query: Query, after: str | None) -> Slice[Row]:
        """The newest first."""
        answer = await self._calls.get(f"/webhooks/{webhook_id}/deliveries", {**query, "limit": PAGE, "after": after})
        return Slice(rows(answer.get("items")), _next(answer))

    async def delivery(self, webhook_id: str, delivery_id: str) -> Row:
        """With its requests."""
        return await self._calls.get(f"/webhooks/{webhook_id}/deliveries/{delivery_id}")

    async def redeliver(self, webhook_id: str, delivery_id: str) -> None:
        """Send it once more."""
        await self._calls.post(f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")

    async def redeliver_range(self, webhook_id: str, values: dict[str, Any]) -> int:
        """Send events of a range of the log; how many were queued."""
        answer = await self._calls.post(f"/webhooks/{webhook_id}/redeliver", values)
        return int(answer.get("queued") or 0)


class UpstreamsApi:
    """Models that others run."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def list_all(self) -> list[Row]:
        """All of them with their endpoints, by name."""
        models = rows((await self._calls.get("/models")).get("items"))
        ids = [text(model.get("id")) for model in models if model.get("external")]
        found = await asyncio.gather(*(self._calls.get(f"/upstreams/{one}") for one in ids))
        return sorted(found, key=lambda one: text(one.get("name")).lower())

    async def create(self, specification: dict[str, Any]) -> None:
        """Route requests to it from now on."""
        await self._calls.post("/upstreams", specification)

    async def update(self, upstream: Row, changes: dict[str, Any]) -> None:
        """Unless somebody else changed it meanwhile."""
        await self._calls.patch(f"/upstreams/{upstream['id']}", changes, version=int(upstream["version"]))

    async def delete(self, upstream_id: str) -> None:
        """Forget it."""
        await self._calls.delete(f"/upstreams/{upstream_id}")

    async def probe(self, upstream_id: str) -> None:
        """Have its endpoints probed now."""
        await self._calls.post("/upstreams/refresh-health", {"model": upstream_id})


class BackupsApi:
    """Backups and jobs."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def status(self) -> Row:
        """What runs and what there is."""
        return await self._calls.get("/deployment/status")

    async def options(self) -> Row:
        """What can be backed up."""
        return await self._calls.get("/deployment/options")

    async def backups(self) -> list[Row]:
        """Those that lie there."""
        return rows((await self._calls.get("/deployment/database-dump")).get("items"))

    async def jobs(self) -> list[Row]:
        """The last ones."""
        return rows((await self._calls.get("/deployment/jobs", {"limit": _JOBS})).get("items"))

    async def estimate(self, body: dict[str, Any]) -> Row:
        """How large it would become."""
        wanted = {name: body[name] for name in ("include", "usage")}
        return await self._calls.post("/deployment/estimate-size", wanted)

    async def export(self, body: dict[str, Any]) -> None:
        """Begin one."""
        await self._calls.post("/deployment/export", body)

    async def restore(self, body: dict[str, Any]) -> None:
        """Begin to replace the database."""
        await self._calls.post("/deployment/restore-database", body)

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._calls.delete(f"/deployment/jobs/{job_id}")


def _next(answer: Row) -> str | None:
    value = answer.get("next")
    return None if value is None else str(value)
