"""Webhooks and their delivery log in Postgres."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.webhooks_rows import attempt_from_row, delivery_from_row, webhook_from_row
from cortex_registry.domain.eventlog import named_topics
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.text import is_id
from cortex_registry.domain.webhooks import TEST_TYPE, Attempt, Delivery, DeliveryStatus, Webhook
from cortex_registry.handlers.webhooks_ports import Span
from cortex_registry.ports import Act

_SQL = load_queries("webhooks")
_EVENTS = load_queries("events")
_BEYOND_ANY = 2**63 - 1


class PostgresWebhooks:
    """WebhookRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, webhook_id: str) -> Webhook | None:
        if not is_id(webhook_id):
            return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_webhook"], webhook_id)
        return webhook_from_row(row) if row is not None else None

    async def list_all(self, after: str | None, limit: int) -> Sequence[Webhook]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_webhooks"], after, limit)
        return [webhook_from_row(row) for row in rows]

    async def add(self, webhook: Webhook, act: Act) -> None:
        async with self._writing() as connection:
            await connection.execute(
                _SQL["insert_webhook"],
                webhook.id,
                webhook.version,
                webhook.name,
                webhook.url,
                list(webhook.events),
                webhook.enabled,
                webhook.secret_sealed,
                webhook.created_by,
                webhook.created_at,
            )
            await connection.execute(_SQL["insert_state"], webhook.id)
            await write_act(connection, Aggregate.WEBHOOK, webhook.id, webhook.version, act)

    async def replace(self, webhook: Webhook, act: Act, *, resumed: bool) -> bool:
        async with self._writing() as connection:
            found = await connection.fetchval(
                _SQL["update_webhook"],
                webhook.id,
                webhook.version - 1,
                webhook.version,
                webhook.name,
                webhook.url,
                list(webhook.events),
                webhook.enabled,
                webhook.disabled_reason,
                webhook.secret_sealed,
                webhook.previous_secret_sealed,
                webhook.previous_until,
                webhook.updated_at,
            )
            if found is None:
                return False
            if not webhook.enabled:
                await connection.execute(_SQL["cancel_pending"], webhook.id)
            # Another address, or another secret, may cure what the endpoint failed of.
            await connection.execute(_SQL["resume_webhook" if resumed else "unpause_webhook"], webhook.id)
            await write_act(connection, Aggregate.WEBHOOK, webhook.id, webhook.version, act)
            await connection.execute(_SQL["notify"])
        return True

    async def remove(self, webhook: Webhook, act: Act) -> bool:
        async with self._writing() as connection:
            if await connection.fetchval(_SQL["delete_webhook"], webhook.id, webhook.version) is None:
                return False
            await write_act(connection, Aggregate.WEBHOOK, webhook.id, webhook.version + 1, act)
        return True

    async def deliveries(
        self, webhook_id: str, status: DeliveryStatus | None, after: int | None, limit: int
    ) -> Sequence[Delivery]:
        start = after if after is not None else _BEYOND_ANY
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_deliveries"], webhook_id, start, status, limit)
        return [delivery_from_row(row) for row in rows]

    async def delivery(self, webhook_id: str, delivery_id: int) -> tuple[Delivery, Sequence[Attempt]] | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_delivery"], webhook_id, delivery_id)
            if row is None:
                return None
            attempts = await connection.fetch(_SQL["list_attempts"], delivery_id)
        return delivery_from_row(row), [attempt_from_row(attempt) for attempt in attempts]

    async def redeliver(self, delivery: Delivery) -> Delivery | None:
        async with self._writing() as connection:
            row = await connection.fetchrow(_SQL["redeliver"], delivery.webhook_id, delivery.sequence)
            await connection.execute(_SQL["notify"])
        return delivery_from_row(row) if row is not None else None

    async def redeliver_span(self, webhook: Webhook, span: Span) -> int:
        async with self._writing() as connection:
            rows = await connection.fetch(_EVENTS["topics"])
            topics = named_topics(webhook.events, [row["topic"] for row in rows])
            status = await connection.execute(
                _SQL["redeliver_span"], webhook.id, span.after, span.until, topics, span.only_failed, span.limit
            )
            await connection.execute(_SQL["notify"])
        return int(status.rsplit(" ", 1)[-1])

    async def record_test(self, webhook_id: str, event_id: str, attempt: Attempt) -> None:
        status = DeliveryStatus.DELIVERED if attempt.delivered else DeliveryStatus.FAILED
        async with self._writing() as connection:
            delivery = await connection.fetchval(
                _SQL["insert_test"], webhook_id, event_id, TEST_TYPE, status, attempt.status, attempt.error
            )
            await connection.execute(
                _SQL["insert_attempt"], delivery, attempt.at, attempt.status, attempt.duration_ms, attempt.error
            )

    def _writing(self) -> AbstractAsyncContextManager[Connection]:
        return self._database.transaction()
