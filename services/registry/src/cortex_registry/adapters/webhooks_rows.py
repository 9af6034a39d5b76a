"""Rows of webhooks and deliveries, in our words."""

from cortex_registry.adapters.records import Row
from cortex_registry.domain.webhooks import Attempt, Delivery, DeliveryKind, DeliveryStatus, Health, Webhook


def webhook_from_row(row: Row) -> Webhook:
    """A row joined with its state."""
    return Webhook(
        id=str(row["id"]),
        version=row["version"],
        name=row["name"],
        url=row["url"],
        events=tuple(row["events"]),
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        secret_sealed=row["secret_sealed"],
        previous_secret_sealed=row["previous_secret_sealed"],
        previous_until=row["previous_until"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        health=Health(
            cursor=row["cursor"],
            failing_since=row["failing_since"],
            failures=row["failures"],
            paused_until=row["paused_until"],
            last_success_at=row["last_success_at"],
            last_failure_at=row["last_failure_at"],
            last_error=row["last_error"],
            pending=row["pending"],
        ),
    )


def delivery_from_row(row: Row) -> Delivery:
    """A row of `webhook_deliveries`."""
    return Delivery(
        id=row["id"],
        webhook_id=str(row["webhook_id"]),
        kind=DeliveryKind(row["kind"]),
        sequence=row["sequence"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        status=DeliveryStatus(row["status"]),
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
    )


def attempt_from_row(row: Row) -> Attempt:
    """A row of `webhook_attempts`."""
    return Attempt(row["at"], row["status"], row["duration_ms"], row["error"])
