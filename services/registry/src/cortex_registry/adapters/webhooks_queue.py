"""What the dispatcher of webhooks works on, in Postgres."""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

from cortex_contracts.events import WebhookDisabledV1
from cortex_registry.adapters.eventlog import PostgresEventSession, event_from_row
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Database, translated
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.webhooks_rows import delivery_from_row, webhook_from_row
from cortex_registry.domain.eventlog import named_topics
from cortex_registry.domain.identity import SYSTEM
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.webhooks import AfterFailure, Attempt, Webhook
from cortex_registry.handlers.webhooks_ports import Job
from cortex_registry.ports import Act

_SQL = load_queries("webhooks")
_EVENTS = load_queries("events")
_LOCK = 0x436F7274_77656268
_PLANNED_AT_ONCE = 500


class PostgresWebhookQueue(PostgresEventSession):
    """WebhookQueue: lock, notifications and statements live and die together."""

    async def lead(self) -> bool:
        with translated():
            return bool(await self._connection.fetchval(_SQL["try_lead"], _LOCK))

    async def plan(self, max_pending: int) -> int:
        with translated():
            head = await self.head()
            behind = await self._connection.fetch(_SQL["behind"], head, max_pending)
            if not behind:
                return 0
            known = [row["topic"] for row in await self._connection.fetch(_EVENTS["topics"])]
            for row in behind:
                topics = named_topics(row["events"], known)
                await self._connection.execute(_SQL["plan"], row["id"], row["cursor"], head, topics, _PLANNED_AT_ONCE)
        return len(behind)

    async def claim(self, used: Mapping[str, int], *, per_webhook: int, limit: int, lease_s: float) -> Sequence[Job]:
        with translated():
            rows = await self._connection.fetch(
                _SQL["claim"], list(used), list(used.values()), per_webhook, limit, lease_s
            )
            deliveries = sorted((delivery_from_row(row) for row in rows), key=lambda delivery: delivery.id)
            webhooks: dict[str, Webhook | None] = {}
            jobs: list[Job] = []
            for delivery in deliveries:
                if delivery.webhook_id not in webhooks:
                    found = await self._connection.fetchrow(_SQL["find_webhook"], delivery.webhook_id)
                    webhooks[delivery.webhook_id] = webhook_from_row(found) if found is not None else None
                webhook = webhooks[delivery.webhook_id]
                if webhook is None:
                    continue
                event = await self._connection.fetchrow(_EVENTS["find_event"], delivery.sequence)
                jobs.append(Job(delivery, webhook, event_from_row(event) if event is not None else None))
        return jobs

    def wake(self) -> None:
        self._hint.set()


class PostgresWebhookQueueSource:
    """WebhookQueueSource."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[PostgresWebhookQueue]:
        session = PostgresWebhookQueue(await self._database.dedicated())
        try:
            await session.listen()
            yield session
        finally:
            await session.close()


class PostgresWebhookResults:
    """WebhookResults."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def succeeded(self, job: Job, attempt: Attempt) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["note_success"], job.webhook.id, attempt.at)
            await connection.execute(_SQL["deliver"], job.delivery.id, attempt.status)
            await connection.execute(
                _SQL["insert_attempt"], job.delivery.id, attempt.at, attempt.status, attempt.duration_ms, None
            )
            if job.webhook.health.failures:
                await connection.execute(_SQL["bring_forward"], job.webhook.id, [job.delivery.id])

    async def failed(self, job: Job, attempt: Attempt, decision: AfterFailure) -> Webhook | None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["note_failure"], job.webhook.id, attempt.at, attempt.error, decision.pause_s)
            await connection.execute(
                _SQL["retry_later"], job.delivery.id, attempt.status, attempt.error, decision.retry_s
            )
            await connection.execute(
                _SQL["insert_attempt"],
                job.delivery.id,
                attempt.at,
                attempt.status,
                attempt.duration_ms,
                attempt.error,
            )
            row = await connection.fetchrow(_SQL["find_webhook"], job.webhook.id)
        return webhook_from_row(row) if row is not None else None

    async def abandoned(self, job: Job, reason: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["abandon"], job.delivery.id, reason)

    async def disable(self, webhook_id: str, reason: str) -> bool:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["disable"], webhook_id, reason)
            if row is None:
                return False
            await connection.execute(_SQL["cancel_pending"], webhook_id)
            event = WebhookDisabledV1(id=webhook_id, name=row["name"], reason=reason)
            act = Act(SYSTEM, "webhook.disable", event, ("enabled",), {"enabled": True}, {"enabled": False})
            await write_act(connection, Aggregate.WEBHOOK, webhook_id, row["version"], act)
        return True

    async def prune(self, finished_before: datetime, limit: int) -> int:
        async with self._database.transaction() as connection:
            status = await connection.execute(_SQL["prune"], finished_before, limit)
        return int(status.rsplit(" ", 1)[-1])
