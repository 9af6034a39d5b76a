"""Questions and answers about webhooks."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from cortex_registry.domain.webhooks import Attempt, Delivery, DeliveryKind, DeliveryStatus, Webhook

BIGGEST = 2**63 - 1
DAY_S = 86_400
MAX_OVERLAP_S = 30 * DAY_S


class WebhookAnswer(BaseModel):
    """A webhook without its secret."""

    id: str
    version: int
    name: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None = Field(description="Why Cortex itself switched it off.")
    previous_secret_until: datetime | None = Field(description="Until then the secret of before signs as well.")
    created_by: str
    created_at: datetime
    updated_at: datetime
    pending: int = Field(description="Deliveries that wait.")
    cursor: int = Field(description="Sequence up to which events were looked at.")
    failing_since: datetime | None
    failures: int = Field(description="Failed requests in a row.")
    paused_until: datetime | None = Field(description="Nothing is sent before then, because the endpoint is down.")
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_error: str | None


class NewWebhookAnswer(WebhookAnswer):
    """The only answers that hold a secret."""

    secret: str = Field(description="Verifies signatures. Shown here and never again.", examples=["whsec_…"])


class WebhookList(BaseModel):
    items: list[WebhookAnswer]
    next: str | None = Field(description="Give it as `after` for the next page.")


class RotateSecret(BaseModel):
    """How long both secrets sign."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: int = Field(
        strict=True, default=DAY_S, ge=0, le=MAX_OVERLAP_S, description="0: the secret of before ends at once."
    )


class RedeliverRange(BaseModel):
    """Which events to send once more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"after": 4000, "until": 4711}]})

    after: int = Field(strict=True, ge=0, le=BIGGEST, description="Events above this sequence,")
    until: int = Field(strict=True, ge=1, le=BIGGEST, description="up to this one.")
    only_failed: StrictBool = Field(default=False, description="Only events that were given up or cancelled.")
    limit: int = Field(strict=True, default=1000, ge=1, le=10_000)


class QueuedAnswer(BaseModel):
    queued: int = Field(description="How many deliveries were queued.")


class DeliveryAnswer(BaseModel):
    """One event on its way to a webhook."""

    id: int
    kind: DeliveryKind
    status: DeliveryStatus
    sequence: int | None = Field(description="The event's place in the log; null for a test.")
    event_id: str = Field(description="Also the header `webhook-id`.")
    event_type: str
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryAnswer":
        return cls(**delivery_fields(delivery))


class AttemptAnswer(BaseModel):
    """One request. `status` is null when there was no answer."""

    at: datetime
    status: int | None
    duration_ms: float
    error: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptAnswer":
        return cls(at=attempt.at, status=attempt.status, duration_ms=round(attempt.duration_ms, 1), error=attempt.error)


class DeliveryWithAttempts(DeliveryAnswer):
    log: list[AttemptAnswer] = Field(description="The last requests, newest first.")


class DeliveryList(BaseModel):
    items: list[DeliveryAnswer]
    next: int | None = Field(description="Give it as `after` for the next page.")


class TestAnswer(AttemptAnswer):
    """What became of a test."""

    __test__ = False  # no test of pytest's

    event_id: str
    delivered: bool


def webhook_fields(webhook: Webhook) -> dict[str, Any]:
    """Fields of a WebhookAnswer."""
    health = webhook.health
    return {
        "id": webhook.id,
        "version": webhook.version,
        "name": webhook.name,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "previous_secret_until": webhook.previous_until,
        "created_by": webhook.created_by,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
        "pending": health.pending,
        "cursor": health.cursor,
        "failing_since": health.failing_since,
        "failures": health.failures,
        "paused_until": health.paused_until,
        "last_success_at": health.last_success_at,
        "last_failure_at": health.last_failure_at,
        "last_error": health.last_error,
    }


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """Fields of a DeliveryAnswer."""
    return {
        "id": delivery.id,
        "kind": delivery.kind,
        "status": delivery.status,
        "sequence": delivery.sequence,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at if delivery.status is DeliveryStatus.PENDING else None,
        "created_at": delivery.created_at,
        "finished_at": delivery.finished_at,
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
    }
