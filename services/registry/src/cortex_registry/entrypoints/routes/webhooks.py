"""Routes of webhooks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from cortex_contracts.rights import Right
from cortex_registry.domain.webhooks import DeliveryStatus, WebhookPatch, WebhookSpecification
from cortex_registry.entrypoints.access import CallerOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.schemas.webhooks import (
    BIGGEST,
    AttemptAnswer,
    DeliveryAnswer,
    DeliveryList,
    DeliveryWithAttempts,
    NewWebhookAnswer,
    QueuedAnswer,
    RedeliverRange,
    RotateSecret,
    TestAnswer,
    WebhookAnswer,
    WebhookList,
    delivery_fields,
    webhook_fields,
)
from cortex_registry.handlers.webhooks import WebhookService
from cortex_registry.handlers.webhooks_ports import Span

DeliveryId = Annotated[int, Path(ge=1, le=BIGGEST)]
Limit = Annotated[int, Query(ge=1, le=1000)]


class WebhookRoutes:
    """/admin/webhooks."""

    def __init__(self, service: WebhookService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("webhooks")
        one = "/webhooks/{webhook_id}"
        log = f"{one}/deliveries"
        routes.add("POST", "/webhooks", self.create, Right.WEBHOOKS_WRITE, status_code=201)
        routes.add("GET", "/webhooks", self.list_all, Right.WEBHOOKS_READ)
        routes.add("GET", one, self.get, Right.WEBHOOKS_READ)
        routes.add("PATCH", one, self.update, Right.WEBHOOKS_WRITE)
        routes.add("DELETE", one, self.delete, Right.WEBHOOKS_WRITE, status_code=204)
        routes.add("POST", f"{one}/rotate-secret", self.rotate_secret, Right.WEBHOOKS_WRITE)
        routes.add("POST", f"{one}/test", self.test, Right.WEBHOOKS_WRITE)
        routes.add("POST", f"{one}/redeliver", self.redeliver_range, Right.WEBHOOKS_WRITE, status_code=202)
        routes.add("GET", log, self.deliveries, Right.WEBHOOKS_READ)
        routes.add("GET", f"{log}/{{delivery_id}}", self.delivery, Right.WEBHOOKS_READ)
        routes.add("POST", f"{log}/{{delivery_id}}/redeliver", self.redeliver, Right.WEBHOOKS_WRITE, status_code=202)
        return routes.router

    async def create(self, wanted: WebhookSpecification, caller: CallerOf, response: Response) -> NewWebhookAnswer:
        """Make a webhook. `secret` is shown here and never again; events are sent from now on."""
        webhook, secret = await self._service.create(wanted, caller)
        response.headers["Location"] = f"/admin/webhooks/{webhook.id}"
        response.headers["Cache-Control"] = "no-store"
        show_version(response, webhook.version)
        return NewWebhookAnswer(**webhook_fields(webhook), secret=secret)

    async def list_all(
        self, after: Annotated[UUID | None, Query(description="`next` of the page before.")] = None, limit: Limit = 100
    ) -> WebhookList:
        """Every webhook, oldest first."""
        found = await self._service.list_all(str(after) if after is not None else None, limit)
        items = [WebhookAnswer(**webhook_fields(webhook)) for webhook in found]
        return WebhookList(items=items, next=items[-1].id if len(items) == limit else None)

    async def get(self, webhook_id: str, response: Response) -> WebhookAnswer:
        """One webhook, with how its endpoint fares."""
        webhook = await self._service.get(webhook_id)
        show_version(response, webhook.version)
        return WebhookAnswer(**webhook_fields(webhook))

    async def update(
        self, webhook_id: str, patch: WebhookPatch, expected: IfMatch, caller: CallerOf, response: Response
    ) -> WebhookAnswer:
        """Replace the given fields. Switched off, what waits is cancelled; switched on, events are sent from then on."""
        webhook = await self._service.update(webhook_id, patch, expected, caller)
        show_version(response, webhook.version)
        return WebhookAnswer(**webhook_fields(webhook))

    async def delete(self, webhook_id: str, expected: IfMatch, caller: CallerOf) -> None:
        """Forget a webhook and its delivery log."""
        await self._service.delete(webhook_id, expected, caller)

    async def rotate_secret(
        self,
        webhook_id: str,
        expected: IfMatch,
        caller: CallerOf,
        response: Response,
        wanted: RotateSecret | None = None,
    ) -> NewWebhookAnswer:
        """A new secret, shown here only. Until the overlap ends, requests carry a signature of each of both."""
        overlap = (wanted or RotateSecret()).overlap_s
        webhook, secret = await self._service.rotate(webhook_id, overlap, expected, caller)
        response.headers["Cache-Control"] = "no-store"
        show_version(response, webhook.version)
        return NewWebhookAnswer(**webhook_fields(webhook), secret=secret)

    async def test(self, webhook_id: str) -> TestAnswer:
        """Send one signed `webhook.test.v1` now and say what became of it."""
        event_id, attempt = await self._service.test(webhook_id)
        return TestAnswer(**AttemptAnswer.of(attempt).model_dump(), event_id=event_id, delivered=attempt.delivered)

    async def redeliver_range(self, webhook_id: str, wanted: RedeliverRange) -> QueuedAnswer:
        """Send events of a range of the log once more, as far as the webhook wants them; the receiver knows them by id."""
        span = Span(wanted.after, wanted.until, wanted.only_failed, wanted.limit)
        return QueuedAnswer(queued=await self._service.redeliver_span(webhook_id, span))

    async def deliveries(
        self,
        webhook_id: str,
        status: Annotated[DeliveryStatus | None, Query()] = None,
        after: Annotated[int | None, Query(ge=1, le=BIGGEST, description="`next` of the page before.")] = None,
        limit: Limit = 100,
    ) -> DeliveryList:
        """The delivery log, newest first."""
        found = await self._service.deliveries(webhook_id, status, after, limit)
        items = [DeliveryAnswer.of(delivery) for delivery in found]
        return DeliveryList(items=items, next=items[-1].id if len(items) == limit else None)

    async def delivery(self, webhook_id: str, delivery_id: DeliveryId) -> DeliveryWithAttempts:
        """One delivery with its requests."""
        delivery, attempts = await self._service.delivery(webhook_id, delivery_id)
        log = [AttemptAnswer.of(attempt) for attempt in attempts]
        return DeliveryWithAttempts(**delivery_fields(delivery), log=log)

    async def redeliver(self, webhook_id: str, delivery_id: DeliveryId) -> DeliveryAnswer:
        """Send one event once more, under its own id."""
        return DeliveryAnswer.of(await self._service.redeliver(webhook_id, delivery_id))
